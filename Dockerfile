# docker build -t reqon .
# docker run -v ./missions:/missions:ro -v reqon-state:/var/lib/reqon -p 127.0.0.1:9090:9090 reqon
#
# All extras are in it: PostgreSQL, MySQL, and every alert target of apprise.
# As it is, it runs /missions as a daemon. What follows the image's name replaces that:
# docker run … reqon /missions/orders.vague --verbose

FROM python:3.11.14-slim-bookworm AS build

WORKDIR /src
COPY requirements requirements
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/build.txt \
    && python -m venv /opt/reqon \
    && /opt/reqon/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements/extras.txt
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-cache-dir --wheel-dir /tmp/wheels . \
    && /opt/reqon/bin/pip install --no-deps --no-index --no-cache-dir /tmp/wheels/*.whl

FROM python:3.11.14-slim-bookworm

# The number is fixed, so that a volume belongs to the same user after every update.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin reqon \
    && install --directory --owner=reqon --group=reqon --mode=0700 /var/lib/reqon
COPY --from=build /opt/reqon /opt/reqon

ENV PATH=/opt/reqon/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    REQON_STATE_DIR=/var/lib/reqon \
    REQON_METRICS_HOST=0.0.0.0 \
    REQON_METRICS_PORT=9090

USER 10001:10001
WORKDIR /var/lib/reqon
VOLUME /var/lib/reqon
EXPOSE 9090
STOPSIGNAL SIGTERM

# Asks for the daemon's own life, not for anybody's API.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['REQON_METRICS_PORT']}/livez\", timeout=4)"]

ENTRYPOINT ["reqon"]
CMD ["/missions", "--daemon"]
