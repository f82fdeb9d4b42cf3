# An image with `lattice-node` and `latticectl`: `docker build -t lattice .`
#
#     docker run --rm -v lattice:/var/lib/lattice -e LATTICE_NATS=nats://host:4222 lattice
#
# Without LATTICE_NATS the node starts a NATS server of its own inside the container.

FROM python:3.11-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /source

# Dependencies first: they change less often than the sources. One of them is built here, with the tool that
# development uses, so that nothing is fetched whose hash is not known.
COPY requirements/ requirements/
RUN python -m venv /opt/build \
 && sed -n -e '/^setuptools==/,/[^\\]$/p' -e '/^ziglang==/,/[^\\]$/p' requirements/dev.txt > requirements/build.txt \
 && /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt \
 && /opt/build/bin/pip wheel --require-hashes --no-build-isolation --wheel-dir /wheels -r requirements/runtime.txt

COPY pyproject.toml README.md LICENSE ./
COPY lattice/ lattice/
COPY providers/ providers/
COPY node/ node/
COPY ctl/ ctl/
RUN /opt/build/bin/python -m node.engine.driver.build \
 && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/lattice \
 && /opt/build/bin/pip --python /opt/lattice/bin/python install --no-deps --no-index /wheels/*.whl \
 && /opt/lattice/bin/python -m compileall -q /opt/lattice/lib

FROM python:3.11-slim

LABEL org.opencontainers.image.title="lattice" \
      org.opencontainers.image.description="A distributed WebAssembly runtime on NATS" \
      org.opencontainers.image.licenses="Apache-2.0"

# A user without rights, whose folders a volume takes over with its owner.
RUN groupadd --gid 10001 lattice \
 && useradd --uid 10001 --gid lattice --home-dir /var/lib/lattice --no-create-home --shell /usr/sbin/nologin lattice \
 && install -d -o lattice -g lattice -m 0700 /var/lib/lattice /credentials /credentials/servers /credentials/clients

COPY --from=build /opt/lattice /opt/lattice

ENV PATH=/opt/lattice/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LATTICE_DATA=/var/lib/lattice/node \
    LATTICE_STATE=/var/lib/lattice

USER 10001:10001
VOLUME /var/lib/lattice

# The lattice knows this node by its name and says that it is there. Without a name: the lattice answers.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
  CMD if [ -n "$LATTICE_NAME" ]; then latticectl describe "$LATTICE_NAME"; else latticectl get nodes; fi > /dev/null

# SIGTERM, which `docker stop` sends, drains the node: give it longer than LATTICE_DRAIN_TIMEOUT.
STOPSIGNAL SIGTERM
ENTRYPOINT ["lattice-node"]
CMD ["start"]
