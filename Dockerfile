# docker build -t penstock .
#
# In front of one provider, whose keys stay with the clients:
#   docker run -p 8080:8080 -v penstock:/data penstock serve --host 0.0.0.0 --upstream https://api.openai.com/v1
# With settings (the file stays readable by uid 10001; secrets come by name from the environment):
#   docker run -p 8080:8080 -v penstock:/data -v ./penstock.toml:/etc/penstock.toml:ro -e OPENAI_API_KEY \
#       penstock serve --host 0.0.0.0 --data-dir /data --config /etc/penstock.toml
#
# Inside a container Penstock must listen on a public host, and on one it refuses to start unless it is told who may
# spend the operator's money: providers with auth = "client", each client with its own key (which --upstream means).
# `docker run penstock` alone names no provider: it prints "give either --upstream URL, or --config FILE" and ends.
# Stop with a grace above [server] drain: docker stop -t 40.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/penstock
WORKDIR /src
COPY requirements.lock ./
RUN /opt/penstock/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY pricing pricing
COPY proxy proxy
RUN /opt/penstock/bin/pip install --no-deps --no-build-isolation . \
    && /opt/penstock/bin/pip uninstall --yes setuptools pip

FROM python:3.13-slim
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin penstock \
    && install --directory --owner=penstock --group=penstock --mode=0700 /data
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# Also where a relative data directory ends up: never outside the volume.
WORKDIR /data
VOLUME /data
EXPOSE 8080
# http.client, not urllib: a proxy named in the environment is no way to reach ourselves. Another --port needs another check.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --start-interval=1s CMD ["python", "-c", "import sys; from http.client import HTTPConnection as C; c = C('127.0.0.1', 8080, timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["penstock"]
CMD ["serve", "--host", "0.0.0.0", "--data-dir", "/data"]
