//! `bulkhead classify`: which pool a statement goes to.

use std::{sync::Arc, time::Duration};

use crate::{
    backend::{Credentials, Identity, search::connect},
    catalog,
    config::Config,
    route::{Demand, Standing, Target},
    sql::{Catalog, Verdict},
    startup::build::{primary_server, routes, server_of},
    threads::Home,
};

/// A command that reads the catalog waits no longer than this for its connection.
const CATALOG_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the primary's catalog on a connection of its own, as the URL's user.
pub fn read_catalog(config: &Config) -> Result<Catalog, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let server = &config.servers[primary_server(config)];
    let limit = server.connect_timeout.unwrap_or(CATALOG_TIMEOUT);
    let (user, database) = (server.user.clone(), server.database.clone());
    let identity = Arc::new(Identity::new(database, user, Credentials::of_url()));
    let server = Arc::new(
        server_of(server, &Arc::default(), config.limits.tcp_user_timeout)
            .map_err(|problem| problem.to_string())?,
    );
    runtime.block_on(async {
        let connected = connect(&server, &identity, Home(0), limit).await;
        let mut backend = connected.map_err(|error| error.to_string())?;
        catalog::read_catalog(&mut backend, 1).await
    })
}

/// The pool, or the error, that a request of this one statement would get in a session of its own.
pub fn pool_for(config: &Config, verdict: Verdict) -> String {
    match routes(config).target(&Demand::of(verdict), Standing::default()) {
        Target::Pool(pool) => config.pools[usize::from(pool.0)].name.clone(),
        // Nothing is held.
        Target::Held | Target::Across(_) | Target::Onward(_) | Target::Nowhere(_) => {
            "none: job tables and application tables live on different servers".to_owned()
        }
    }
}
