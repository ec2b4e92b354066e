FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/parallax
COPY requirements/run.txt requirements/run.txt
RUN /opt/parallax/bin/pip install --require-hashes --prefer-binary -r requirements/run.txt
COPY pyproject.toml ./
COPY schemas schemas
COPY core core
COPY stream_app stream_app
RUN /opt/parallax/bin/pip install --no-deps --no-build-isolation --no-index .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/parallax --create-home parallax
COPY --from=build /opt/parallax /opt/parallax
ENV PATH=/opt/parallax/bin:$PATH PYTHONUNBUFFERED=1 PARALLAX_DATADIR=/var/lib/parallax
USER parallax
WORKDIR /var/lib/parallax
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["parallax", "health"]
ENTRYPOINT ["parallax"]
CMD ["worker"]
