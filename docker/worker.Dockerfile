# One worker: torch and the networks. Mount a checkpoint folder and set FACE_ANON_CHECKPOINT for other weights.
FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY cli cli
COPY jobs jobs
COPY model model
COPY samples samples
COPY service service
COPY worker worker
RUN pip install --no-cache-dir -c constraints.txt '.[model]' && useradd --create-home face-anon
USER face-anon
CMD ["face-anon", "worker"]
