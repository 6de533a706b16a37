// Sigstore's timestamp authority on one loopback port.
//
// Its own program also serves metrics on port 2112 of every interface of the machine, so two would not run beside one
// another.
package main

import (
	"flag"
	"log"
	"time"

	"github.com/sigstore/timestamp-authority/v2/pkg/server"
	"github.com/spf13/viper"
)

const (
	timeout    = 30 * time.Second
	policy     = "1.3.6.1.4.1.57264.2" // Sigstore's, as its own program's default
	maxRequest = 1 << 20               // bytes; a request has about 60
)

func main() {
	port := flag.Int("port", 0, "where it listens on loopback")
	chain := flag.String("chain", "", "its certificate and that of its root (PEM)")
	key := flag.String("key", "", "its private key (PKCS#8, PEM)")
	flag.Parse()

	for name, value := range map[string]any{
		"timestamp-signer":         "file",
		"timestamp-signer-hash":    "sha256",
		"file-signer-key-path":     *key,
		"certificate-chain-path":   *chain,
		"enforce-intermediate-eku": true,
		"default-policy-oid":       policy,
		"accepted-policy-oids":     []string{policy},
		"max-request-body-size":    maxRequest,
	} {
		viper.Set(name, value)
	}
	served := server.NewRestAPIServer("127.0.0.1", *port, []string{"http"}, false, timeout, timeout)
	if err := served.Serve(); err != nil {
		log.Fatal(err)
	}
}
