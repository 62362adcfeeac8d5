# The HTTP service: no torch, a small image.
FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY cli cli
COPY jobs jobs
COPY model model
COPY samples samples
COPY service service
COPY worker worker
RUN pip install --no-cache-dir -c constraints.txt '.[service]' && useradd --create-home face-anon
USER face-anon
EXPOSE 8000
CMD ["face-anon", "service", "--host", "0.0.0.0"]
