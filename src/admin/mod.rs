//! Placeholder until merged.
/// x
pub async fn serve(
    _l: tokio::net::TcpListener,
    _s: std::sync::Arc<crate::session::Shared>,
    stop: tokio_util::sync::CancellationToken,
) {
    stop.cancelled().await;
}
