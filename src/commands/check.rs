//! `bulkhead check`: what is wrong with a configuration, as far as its text and the files that it names tell.

use crate::{
    auth::tls,
    config::Config,
    startup::{
        StartError,
        build::{Files, connector, rules},
    },
};

/// Checks what can be checked of a configuration besides its text: the files that it names. Blocks.
pub fn check(config: &Config) -> Result<(), StartError> {
    rules(config)?;
    Files::read(config)?;
    Ok(())
}

/// Problems of the certificates and keys that a configuration names.
pub fn check_certificates(config: &Config) -> Vec<tls::Problem> {
    let clients = tls::acceptor(&config.listen.tls).err();
    let servers = config.servers.iter().filter_map(|server| connector(server).err());
    clients.into_iter().chain(servers).collect()
}
