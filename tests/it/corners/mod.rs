//! The corners of the protocol. Where the same can be said to both, a script is run straight at the server and through
//! the proxy, whose only backend another session uses in between, and both must have told the same.

mod cancels;
mod copies;
mod functions;
mod giants;
mod goodbyes;
mod pipelines;
mod portals;
mod prepared;
mod restarts;
mod talk;
mod timeouts;
