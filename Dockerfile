# Two images from one file:
#
#   docker build --target rollbackd .   the binary alone, static, as nobody
#   docker build --target fleet .       OpenRTC workers with made-up calls, to try rollbackd on

FROM rust:1.95.0-alpine3.22 AS build
RUN apk add --no-cache ca-certificates gcc make musl-dev
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY benches benches
COPY src src
COPY tests tests
ARG REVISION=
ENV ROLLBACKD_REVISION=$REVISION
# On Alpine the C library is linked in: nothing else is needed where it runs.
RUN cargo build --release --locked --bin rollbackd && mkdir -p /rootfs/var/lib/rollbackd

FROM scratch AS rollbackd
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/rollbackd /rollbackd
COPY --from=build --chown=65534:65534 /rootfs/var/lib/rollbackd /var/lib/rollbackd
USER 65534:65534
WORKDIR /var/lib/rollbackd
EXPOSE 9788
ENTRYPOINT ["/rollbackd"]
CMD ["run", "--config", "/etc/rollbackd/rollbackd.yml"]

FROM python:3.11.13-slim-bookworm AS fleet
COPY integrations/openrtc /opt/rollbackd-openrtc
RUN pip install --no-cache-dir /opt/rollbackd-openrtc
COPY --from=build /src/target/release/rollbackd /usr/local/bin/rollbackd
COPY compose/prepare compose/discovery.py compose/faults.py /opt/compose/
# Volumes mounted here take over who owns them.
RUN install -d -o 65534 -g 65534 /var/lib/rollbackd /run/fleet /run/secrets-of-the-fleet
ENV HOME=/tmp
USER 65534:65534
