# syntax=docker/dockerfile:1
# A static binary on nothing: no shell, no libraries, no user but its own.

FROM rust:1.95-alpine AS build
# hadolint ignore=DL3018
RUN apk add --no-cache make musl-dev ca-certificates
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY .cargo ./.cargo
COPY benches ./benches
COPY src ./src
COPY config.toml.example ./
# Kernels for ARM have pages of up to 64 KiB; the allocator must be built for the largest that it will meet.
RUN if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
    && cargo build --release --locked --bin sidewire \
    && install -D -m 755 target/release/sidewire /image/usr/bin/sidewire \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && install -d -m 700 -o 65532 -g 65532 /image/var/lib/sidewire

FROM scratch
LABEL org.opencontainers.image.title="Sidewire" \
      org.opencontainers.image.description="A message-broker sidecar" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /image /
USER 65532:65532
# A directory below the volume: that itself may belong to somebody else.
ENV SIDEWIRE_LOG__DIR=/var/lib/sidewire/log
VOLUME /var/lib/sidewire
# app, client, admin. All listen on loopback until the configuration says otherwise.
EXPOSE 7070 7080 7090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["/usr/bin/sidewire", "health"]
ENTRYPOINT ["/usr/bin/sidewire"]
CMD ["run"]
