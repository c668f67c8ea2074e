package main

import (
	"context"
	"errors"
	"io"
	"os"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secrets "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

var node = &core.Node{Id: "bench", Cluster: "bench"}

// load keeps the streams open and acknowledges each response at once, until stdin ends. All connections are of this
// one process, which is what Proofbeat's server demands of a client.
func load(socket string, streams, connections int, sotw bool) error {
	follow := followDelta
	if sotw {
		follow = followSotw
	}
	clients := make([]secrets.SecretDiscoveryServiceClient, connections)
	for number := range clients {
		connection, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer connection.Close()
		clients[number] = secrets.NewSecretDiscoveryServiceClient(connection)
	}
	ended := make(chan error, streams+1)
	for number := range streams {
		go func() { ended <- follow(clients[number%connections]) }()
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		ended <- nil
	}()
	return <-ended
}

func followDelta(client secrets.SecretDiscoveryServiceClient) error {
	stream, err := client.DeltaSecrets(context.Background())
	if err != nil {
		return err
	}
	request := &discovery.DeltaDiscoveryRequest{
		Node: node, TypeUrl: resource.SecretType, ResourceNamesSubscribe: []string{secretName},
	}
	for {
		if err := stream.Send(request); err != nil {
			return err
		}
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(response.Resources) != 1 {
			return errors.New("a response without the secret")
		}
		request = &discovery.DeltaDiscoveryRequest{TypeUrl: resource.SecretType, ResponseNonce: response.Nonce}
	}
}

func followSotw(client secrets.SecretDiscoveryServiceClient) error {
	stream, err := client.StreamSecrets(context.Background())
	if err != nil {
		return err
	}
	request := &discovery.DiscoveryRequest{
		Node: node, TypeUrl: resource.SecretType, ResourceNames: []string{secretName},
	}
	for {
		if err := stream.Send(request); err != nil {
			return err
		}
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(response.Resources) != 1 {
			return errors.New("a response without the secret")
		}
		request = &discovery.DiscoveryRequest{
			TypeUrl: resource.SecretType, ResourceNames: []string{secretName},
			ResponseNonce: response.Nonce, VersionInfo: response.VersionInfo,
		}
	}
}
