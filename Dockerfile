# syntax=docker/dockerfile:1

# --- build: everything that the program needs is compiled in, SQLite and TLS included ---
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin holdfast \
    && install -D target/release/holdfast /out/usr/local/bin/holdfast \
    && install -D --mode=0644 LICENSE /out/usr/share/doc/holdfast/LICENSE \
    && install -d --owner=10001 --group=10001 --mode=0700 /out/var/lib/holdfast

# --- image: the C library, the program, what executes and confines Python tools, and an unprivileged user ---
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/ /
USER 10001:10001
ENV HOLDFAST_DATA_DIR=/var/lib/holdfast \
    HOLDFAST_LISTEN=0.0.0.0:8283 \
    HOLDFAST_LOG_FORMAT=json
VOLUME /var/lib/holdfast
EXPOSE 8283
STOPSIGNAL SIGTERM
# For `dev` and `api`; a worker listens nowhere and turns it off. Bash speaks enough HTTP, so the image has no client.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=5 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8283 && printf 'GET /v1/health/ HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r status <&3 && [[ $status == *' 200 '* ]]"]
ENTRYPOINT ["holdfast"]
# Listening on all addresses, the program wants keys: docker run -e HOLDFAST_API_KEYS=choose-a-key -p 127.0.0.1:8283:8283 ...
CMD ["dev"]
