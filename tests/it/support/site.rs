//! One server and a proxy with a few connections to it, which sessions share.

use super::{Message, Postgres, Proxy, ProxyConfig, RawClient, Role};

pub(crate) struct Site {
    pub(crate) proxy: Proxy,
    pub(crate) primary: Postgres,
}

impl Site {
    /// Two backends for everybody: so few that sessions meet each other's, and enough to come from one to the other.
    pub(crate) fn start() -> Self {
        Self::with_backends(2)
    }

    pub(crate) fn with_backends(count: i64) -> Self {
        Self::configured(|config| config.pool("primary", &["primary"], count))
    }

    /// A superuser runs these statements before the proxy starts, which so knows what they have made.
    pub(crate) async fn with_objects(sql: &str, backends: i64) -> Self {
        let primary = Postgres::start(Role::Primary);
        primary.query(sql).await;
        Self::of(primary, |config| config.pool("primary", &["primary"], backends))
    }

    /// Two backends, unless the configuration is changed to others.
    pub(crate) fn configured(change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Self {
        Self::of(Postgres::start(Role::Primary), change)
    }

    fn of(primary: Postgres, change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Self {
        // Logins without passwords cost nothing.
        let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 2);
        let proxy = Proxy::start(&change(config.set("auth", "method", "trust")).to_toml());
        Self { proxy, primary }
    }

    /// A session of the user `app`.
    pub(crate) async fn client(&self) -> RawClient {
        self.client_with(&[]).await
    }

    /// A session with startup parameters.
    pub(crate) async fn client_with(&self, parameters: &[(&str, &str)]) -> RawClient {
        self.try_client(parameters).await.unwrap_or_else(|error| panic!("{parameters:?}: {error:?}"))
    }

    /// A session with startup parameters, or the error that it is refused by.
    pub(crate) async fn try_client(&self, parameters: &[(&str, &str)]) -> Result<RawClient, Message> {
        let mut client = RawClient::open(self.proxy.port()).await;
        client.startup(&[&[("user", "app"), ("database", "app")], parameters].concat()).await;
        client.authenticate("app", "secret").await.map_or(Ok(client), Err)
    }

    /// Waits until as many sessions are pinned for this reason.
    pub(crate) async fn wait_for_pinned(&self, reason: &str, count: f64) {
        self.proxy.wait_for_metric(&format!("bulkhead_sessions_pinned{{reason=\"{reason}\"}}"), count).await;
    }
}

/// Takes as many backends as there are others for a moment, so that whoever comes next may get either of them.
pub(crate) async fn shuffle(others: &mut [RawClient]) {
    for other in others.iter_mut() {
        other.query("SELECT pg_sleep(0.002)").await;
    }
    for other in others.iter_mut() {
        other.read_until_ready().await;
    }
}
