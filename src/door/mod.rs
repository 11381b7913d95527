//! From a connection to a session: accepting clients, encryption, the first packet, cancels, who the client is, and what
//! it is told of itself.

pub mod accept;
mod authenticate;
mod claim;
mod database;
mod greeting;
pub mod login;
mod refused;
mod reprove;
mod stranger;
pub mod unix_socket;
