# Service and simulated bench (docker-compose.yml says which), from pinned packages, not as root.
FROM python:3.11-slim

# torch's CPU build: a tenth of the default one, and the simulated bench needs no GPU.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /app
COPY pyproject.toml constraints.txt LICENSE ./
COPY lab lab
COPY drivers drivers
COPY server server
COPY twins twins
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints.txt -e .
COPY bench.toml bench-circuit.toml bench-compose.toml bench-plate.toml bench-redpitaya.toml ./

RUN useradd --create-home pnnlab && install -d -o pnnlab -g pnnlab /app/pnnlab-data
USER pnnlab
# Downloaded data sets live in the volume too, and so survive a new container.
ENV XDG_CACHE_HOME=/app/pnnlab-data/cache
VOLUME /app/pnnlab-data
EXPOSE 8000
CMD ["pnnlab", "serve", "--host", "0.0.0.0", "--port", "8000"]
