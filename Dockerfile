# Bulkhead in an image: about 100 MB, runs as a user without rights.
#
#   docker build -t bulkhead .
#   docker run --rm -p 6432:6432 -e DATABASE_URL=postgres://user:password@host:5432/app bulkhead
#
# Without a file, the environment configures it (DATABASE_URL, REPLICA_URLS, JOBS_DATABASE_URL). With one:
#   -v ./bulkhead.toml:/etc/bulkhead/bulkhead.toml:ro .. bulkhead --config /etc/bulkhead/bulkhead.toml

FROM rust:1-bookworm AS build
# The SQL parser is built through bindgen, which loads libclang.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
# The crates that it uses first, with nothing of its own: a layer that changes in the sources do not build again. By
# layers alone, so that builders without BuildKit do as well.
RUN mkdir -p src benches/outbox benches/pooler tests/it \
    && touch src/lib.rs benches/classify.rs benches/hot_path.rs benches/outbox/main.rs benches/pooler/main.rs tests/it/main.rs \
    && echo 'fn main() {}' >src/main.rs \
    && cargo build --release --locked --bin bulkhead \
    && cargo clean --release --locked --package bulkhead \
    && rm -r src
COPY src src
# What `bulkhead --version` says: docker build --build-arg BULKHEAD_COMMIT=$(git rev-parse --short HEAD) ..
ARG BULKHEAD_COMMIT=unknown
RUN cargo build --release --locked --bin bulkhead \
    && cp target/release/bulkhead /usr/local/bin/bulkhead \
    && strip /usr/local/bin/bulkhead

FROM debian:12-slim
# Certificates of the authorities that sign servers' certificates.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin bulkhead
COPY --from=build /usr/local/bin/bulkhead /usr/local/bin/bulkhead
USER 10001:10001
# In a container the loopback interface would reach nobody.
ENV BULKHEAD_LISTEN=0.0.0.0:6432 BULKHEAD_HTTP=0.0.0.0:9930
EXPOSE 6432 9930
# Takes the command line's configuration or the environment; set BULKHEAD_CONFIG for a file elsewhere.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["sh", "-c", "exec bulkhead ${BULKHEAD_CONFIG:+--config \"$BULKHEAD_CONFIG\"} health"]
# SIGTERM drains: transactions may finish within listen.shutdown_grace. Give `docker stop --time` longer than that.
STOPSIGNAL SIGTERM
ENTRYPOINT ["bulkhead"]
