# The service and the trainers, with the versions that they are tested with; docker-compose.yml runs both.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/venv
RUN /opt/venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt '.[all]'

FROM python:3.11.13-slim-bookworm
# implicit's wheels bring no OpenMP of their own.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 libstdc++6 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home embeddings && install --directory --owner embeddings --group embeddings /repo
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
# A volume that is mounted here first belongs to this user.
WORKDIR /repo
USER 10001:10001
EXPOSE 8080
CMD ["feast-embeddings", "--help"]
