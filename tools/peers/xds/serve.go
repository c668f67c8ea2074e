package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secrets "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

const (
	secretName              = "workload"
	chainBytes, keyBytes    = 1100, 300
	maxConcurrentStreams    = 4096
	firstVersion            = 0
	nanosecondsAMillisecond = 1e6
)

// stretch is what some rotations cost: each one's milliseconds from the change to the last acknowledgement, and the
// CPU seconds of the whole process meanwhile.
type stretch struct {
	Rotations  []float64 `json:"rotations_ms"`
	CPUSeconds float64   `json:"cpu_seconds"`
}

// acknowledgements counts the answers to one version, and tells when all streams have given theirs.
type acknowledgements struct {
	streams int64
	count   atomic.Int64
	all     chan struct{}
}

func (a *acknowledgements) answered(nonce string, rejected bool) error {
	if rejected {
		return fmt.Errorf("the load rejected response %s", nonce)
	}
	if nonce != "" && a.count.Add(1)%a.streams == 0 {
		a.all <- struct{}{}
	}
	return nil
}

// serve holds one secret. It says "listening", then "ready" once every stream has acknowledged the first version;
// a line with a number on stdin makes it rotate the secret so many times, one after the other, and tell the stretch.
// That is the whole conversation; the end of stdin ends it.
func serve(socket string, streams int) error {
	acknowledged := &acknowledgements{streams: int64(streams), all: make(chan struct{}, 1)}
	// The linear cache is the leanest there is for one type of resource.
	held := cache.NewLinearCache(resource.SecretType)
	if err := held.UpdateResource(secretName, secret(firstVersion)); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	served := grpc.NewServer(grpc.MaxConcurrentStreams(maxConcurrentStreams))
	secrets.RegisterSecretDiscoveryServiceServer(served, server.NewServer(context.Background(), held, server.CallbackFuncs{
		StreamRequestFunc: func(_ int64, request *discovery.DiscoveryRequest) error {
			return acknowledged.answered(request.ResponseNonce, request.ErrorDetail != nil)
		},
		StreamDeltaRequestFunc: func(_ int64, request *discovery.DeltaDiscoveryRequest) error {
			return acknowledged.answered(request.ResponseNonce, request.ErrorDetail != nil)
		},
	}))
	go func() {
		if err := served.Serve(listener); err != nil {
			fail(1, fmt.Sprintf("xds serve: %v\n", err))
		}
	}()
	fmt.Println("listening")
	<-acknowledged.all
	fmt.Println("ready")
	return rotateOnDemand(held, acknowledged)
}

func rotateOnDemand(held *cache.LinearCache, acknowledged *acknowledgements) error {
	version := firstVersion
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		wanted, err := strconv.Atoi(orders.Text())
		if err != nil {
			return err
		}
		done := stretch{Rotations: make([]float64, 0, wanted)}
		before := cpuSeconds()
		for range wanted {
			version++
			began := time.Now()
			if err := held.UpdateResource(secretName, secret(version)); err != nil {
				return err
			}
			<-acknowledged.all
			done.Rotations = append(done.Rotations, float64(time.Since(began))/nanosecondsAMillisecond)
		}
		done.CPUSeconds = cpuSeconds() - before
		if err := json.NewEncoder(os.Stdout).Encode(done); err != nil {
			return err
		}
	}
	return orders.Err()
}

// secret has the size of a certificate chain with its key; nobody here looks into it.
func secret(version int) *tls.Secret {
	chain := fmt.Sprintf("%08d", version)
	return &tls.Secret{
		Name: secretName,
		Type: &tls.Secret_TlsCertificate{TlsCertificate: &tls.TlsCertificate{
			CertificateChain: inline(chain + strings.Repeat("c", chainBytes-len(chain))),
			PrivateKey:       inline(strings.Repeat("k", keyBytes)),
		}},
	}
}

func inline(text string) *core.DataSource {
	return &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: []byte(text)}}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fail(1, fmt.Sprintf("xds serve: getrusage: %v\n", err))
	}
	return seconds(usage.Utime) + seconds(usage.Stime)
}

func seconds(time syscall.Timeval) float64 {
	return float64(time.Sec) + float64(time.Usec)/1e6
}
