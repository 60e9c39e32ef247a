# One image for every part; docker-compose.yaml says which command each container runs.
FROM python:3.11-slim-bookworm AS build

# Where torch comes from. The wheels for the CPU are a tenth of the size; for a GPU say, for example,
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv

# The libraries first: they change seldom and take minutes. pip compiles their bytecode, which halves the boot.
# torch with what it needs from its own index; everything else is in the lock, so nothing is resolved again.
COPY requirements-deploy.txt ./
RUN pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements-deploy.txt)" \
    && pip install --no-deps --requirement requirements-deploy.txt

WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE airflow_settings.yaml ./
COPY include ./include
COPY dags ./dags
COPY deploy ./deploy
RUN pip wheel --no-deps --wheel-dir /wheels . && pip install --no-deps /wheels/perennial-*.whl
WORKDIR /opt/perennial
RUN perennial dags install dags --fleet include/fleet \
    && cp -r /source/airflow_settings.yaml /source/deploy . \
    && python -m compileall -q dags include


FROM python:3.11-slim-bookworm

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/state/airflow \
    PERENNIAL_HOME=/state \
    PERENNIAL_PROJECT=/opt/perennial \
    PERENNIAL_FLEET_FOLDER=/opt/perennial/include/fleet \
    MLFLOW_DISABLE_TELEMETRY=true \
    GX_ANALYTICS_ENABLED=false \
    HF_HUB_DISABLE_TELEMETRY=1 \
    SCARF_ANALYTICS=false \
    DO_NOT_TRACK=1

RUN useradd --uid 10001 --create-home perennial && install -d -m 0700 -o perennial /state
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/perennial /opt/perennial

WORKDIR /opt/perennial
USER 10001
VOLUME /state
CMD ["perennial", "--help"]
