// Fulcio's certificate authority on one loopback port.
//
// Everything that decides is Fulcio's own: who a token is of, what a certificate says, the certificate log. Its own
// program also listens for gRPC and for metrics, and for metrics on every interface of the machine.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/certificate-transparency-go/client"
	"github.com/google/certificate-transparency-go/jsonclient"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/sigstore/fulcio/pkg/ca/fileca"
	"github.com/sigstore/fulcio/pkg/config"
	"github.com/sigstore/fulcio/pkg/generated/protobuf"
	"github.com/sigstore/fulcio/pkg/server"
	common "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/grpc/metadata"
)

const (
	timeout    = 30 * time.Second
	maxRequest = 1 << 20 // bytes; a token and a certificate request have about 3 KiB
)

func token(_ context.Context, request *http.Request) metadata.MD {
	return metadata.Pairs(server.MetadataOIDCTokenKey, strings.TrimPrefix(request.Header.Get("Authorization"), "Bearer "))
}

func main() {
	address := flag.String("address", "", "where it listens: 127.0.0.1:PORT")
	issuers := flag.String("config", "", "Fulcio's configuration: whose tokens it takes")
	certificate := flag.String("certificate", "", "its certificate")
	key := flag.String("key", "", "its private key (PKCS#8, PEM)")
	logURL := flag.String("log", "", "the certificate log")
	logKey := flag.String("log-key", "", "the certificate log's public key (PEM)")
	flag.Parse()

	settings, err := config.Load(*issuers)
	must(err)
	authority, err := fileca.NewFileCA(*certificate, *key, "", false)
	must(err)
	public, err := os.ReadFile(*logKey)
	must(err)
	certificates, err := client.New(*logURL, &http.Client{Timeout: timeout}, jsonclient.Options{PublicKey: string(public)})
	must(err)
	algorithms, err := signature.NewAlgorithmRegistryConfig([]common.PublicKeyDetails{common.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256})
	must(err)

	mux := runtime.NewServeMux(runtime.WithMetadata(token))
	issuer := server.NewGRPCCAServer(certificates, authority, algorithms, server.NewIssuerPool(settings))
	must(protobuf.RegisterCAHandlerServer(context.Background(), mux, issuer))
	limited := server.WithMaxBytes(mux, maxRequest)
	handler := http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		limited.ServeHTTP(writer, request.WithContext(config.With(request.Context(), settings)))
	})
	served := &http.Server{Addr: *address, Handler: handler, ReadTimeout: timeout, WriteTimeout: timeout}
	must(served.ListenAndServe())
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
