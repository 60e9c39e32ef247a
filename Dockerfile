# One image for every part; docker-compose.yaml says which command each container runs.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    AIRFLOW_HOME=/state/airflow \
    PERENNIAL_HOME=/state \
    PERENNIAL_PROJECT=/opt/perennial \
    MLFLOW_DISABLE_TELEMETRY=true \
    GX_ANALYTICS_ENABLED=false \
    SCARF_ANALYTICS=false \
    DO_NOT_TRACK=1

WORKDIR /opt/perennial

# The libraries first: they change seldom and take minutes. pip compiles their bytecode, which halves the boot.
COPY requirements.txt ./
RUN pip install -r requirements.txt

COPY pyproject.toml requirements.in README.md LICENSE airflow_settings.yaml ./
COPY include ./include
COPY dags ./dags
COPY plugins ./plugins
RUN pip install --no-deps --no-build-isolation -e . \
    && python -m compileall -q include dags plugins \
    && useradd --uid 10001 --create-home perennial \
    && install -d -m 0700 -o perennial /state

USER perennial
VOLUME /state
CMD ["perennial", "--help"]
