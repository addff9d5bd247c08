# weir in a small image that runs as nobody in particular.
FROM rust:1.95-slim-bookworm AS build
# What librdkafka, RocksDB and OpenSSL are compiled with.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make perl libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ENV CARGO_TARGET_DIR=/target
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target \
    cargo build --profile dist --locked --bin weir \
    && cp /target/dist/weir /weir

FROM debian:bookworm-slim
# libstdc++ for RocksDB; the authorities for TLS to Kafka and ClickHouse.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/weir --create-home weir
COPY --from=build /weir /usr/local/bin/weir
# For `run` and for the health check.
ENV WEIR_CONFIG=/etc/weir/weir.yaml
USER weir
# The state; give it a volume, or every start re-reads the source for the window.
VOLUME /var/lib/weir
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["weir", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["weir"]
CMD ["run"]
