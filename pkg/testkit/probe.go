package testkit

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/paths"
)

// Probe asks the daemon on the node for a path such as /readyz; the status is 0 when nothing answers.
func (r *Rig) Probe(path string) (status int, body string) {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return r.DialContext(ctx, network, address)
	}
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	response, err := client.Get("http://" + paths.AgentAddress + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	data, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(data)
}
