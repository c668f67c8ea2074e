// Command xds is what `proofbeat bench xds-push` is measured beside and with: a secret discovery server made of
// go-control-plane, and a load of streams that acknowledge everything, for that server and for Proofbeat's.
package main

import (
	"flag"
	"fmt"
	"os"
)

const usage = `usage: xds serve -socket PATH -streams N
       xds load -socket PATH -streams N -connections N [-sotw]
`

func main() {
	if len(os.Args) < 2 {
		fail(2, usage)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	socket := flags.String("socket", "", "the server's Unix socket")
	streams := flags.Int("streams", 1, "streams that are open at once")
	connections := flags.Int("connections", 1, "load: HTTP/2 connections that carry them")
	sotw := flags.Bool("sotw", false, "load: state of the world instead of incremental")
	_ = flags.Parse(os.Args[2:])

	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(*socket, *streams)
	case "load":
		err = load(*socket, *streams, *connections, *sotw)
	default:
		fail(2, usage)
	}
	if err != nil {
		fail(1, fmt.Sprintf("xds %s on %s: %v\n", os.Args[1], *socket, err))
	}
}

func fail(code int, message string) {
	fmt.Fprint(os.Stderr, message)
	os.Exit(code)
}
