# The image that `make image` builds without a container engine, for those who have one (BuildKit or buildah):
#
#   docker build --build-arg VERSION=v0.1.0 --tag ip-masq-agent:v0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 ...
#
# scripts/image is the other description of this image; a test compares the two.
ARG GO_VERSION=1.26

FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY pkg pkg
COPY plugin plugin
COPY scripts/build scripts/version scripts/
# Runtimes record network namespaces as /var/run/netns/NAME; the agent has to find them below the /run that it is given.
RUN mkdir -p /image/run /image/var && ln -s /run /image/var/run
ARG TARGETARCH
ARG VERSION=devel
RUN GOARCH=$TARGETARCH scripts/build /image

FROM scratch
ARG VERSION=devel
ARG REVISION=
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="ip-masq-agent" \
      org.opencontainers.image.description="Node masquerading for Kubernetes: CNI plugin ip-masq, ip-masq-agent and ip-masq-installer" \
      org.opencontainers.image.source="https://github.com/ip-masq/ip-masq-cni" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
# The programs by their bare names, and the places of the host's iptables, which the agent starts below the host's root.
ENV PATH=/:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /
COPY --from=build /image/ /
# No USER: the rules are root's. What root may do is for the manifests to cut down.
ENTRYPOINT ["/ip-masq-agent"]
