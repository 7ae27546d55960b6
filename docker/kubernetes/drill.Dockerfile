# binvault with a mysqld and a mysql client, for drills; from the checkout's top, after docker/Dockerfile was built as `binvault`:
#   docker build -f docker/kubernetes/drill.Dockerfile -t registry.example.org/binvault-drill:0.1.0 .
# Take the MySQL of the archived server's series. NOT BUILT YET: no container engine was at hand.
FROM binvault AS binvault

FROM mysql:9.7
COPY --from=binvault /usr/local/bin/binvault /usr/local/bin/binvault
# It is linked against the C library of the image that it was built in: a build that does not run here fails here.
RUN binvault --version
USER 65532:65532
ENV BINVAULT_CONFIG=/etc/binvault/binvault.toml
STOPSIGNAL SIGTERM
ENTRYPOINT ["binvault"]
CMD ["drill"]
