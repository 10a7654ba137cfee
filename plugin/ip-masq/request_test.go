package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

const (
	network = "pods"
	ifName  = "eth0"
)

// request is one run of the plugin: environment and network configuration.
type request struct {
	env   map[string]string
	conf  map[string]any
	stdin string // instead of conf
}

// request makes one for a container with these addresses, in version 1.1.0.
func (h *host) request(verb, container string, addresses ...string) *request {
	r := &request{
		env: map[string]string{
			"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_IFNAME": ifName,
			"CNI_NETNS": h.pod.Path, "CNI_PATH": "/opt/cni/bin",
		},
		conf: map[string]any{
			"cniVersion": "1.1.0", "name": network, "type": "ip-masq",
			"stateDir": h.stateDir, "dataDir": h.dataDir,
		},
	}
	if !h.IsIPTables() {
		r.conf["backend"] = h.Choice
	}
	if len(addresses) > 0 {
		r.conf["prevResult"] = h.result(addresses...)
	}
	return r
}

// result is what a main plugin returns for one interface.
func (h *host) result(addresses ...string) map[string]any {
	ips := []any{}
	for _, a := range addresses {
		bits := "/24"
		if netip.MustParseAddr(a).Is6() {
			bits = "/64"
		}
		ips = append(ips, map[string]any{"address": a + bits, "interface": 0})
	}
	interfaces := []any{map[string]any{"name": ifName, "sandbox": h.pod.Path}}
	return map[string]any{"cniVersion": "1.1.0", "interfaces": interfaces, "ips": ips, "dns": map[string]any{}}
}

// as is the same request for another verb.
func (r *request) as(verb string) *request {
	return (&request{env: maps.Clone(r.env), conf: maps.Clone(r.conf), stdin: r.stdin}).setenv("CNI_COMMAND", verb)
}

// set changes a key of the configuration; nil removes it.
func (r *request) set(key string, value any) *request {
	r.conf[key] = value
	if value == nil {
		delete(r.conf, key)
	}
	return r
}

// setenv changes a variable; the empty text removes it.
func (r *request) setenv(key, value string) *request {
	r.env[key] = value
	if value == "" {
		delete(r.env, key)
	}
	return r
}

// version sets the version of configuration and previous result. Before 1.0.0 an address names its family.
func (r *request) version(v string) *request {
	r.set("cniVersion", v)
	previous, ok := r.conf["prevResult"].(map[string]any)
	if !ok {
		return r
	}
	previous = maps.Clone(previous)
	previous["cniVersion"] = v
	if v < "1" {
		var ips []any
		for _, ip := range previous["ips"].([]any) {
			entry := maps.Clone(ip.(map[string]any))
			entry["version"] = "4"
			if strings.Contains(entry["address"].(string), ":") {
				entry["version"] = "6"
			}
			ips = append(ips, entry)
		}
		previous["ips"] = ips
	}
	return r.set("prevResult", previous)
}

func (r *request) command(h *host) netnstest.Cmd {
	c := netnstest.Cmd{Args: append(append([]string{}, h.through...), testkit.Program("ip-masq")), Stdin: r.stdin}
	for key, value := range r.env {
		c.Env = append(c.Env, key+"="+value)
	}
	if r.stdin == "" {
		var b strings.Builder
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(r.conf)
		c.Stdin = b.String()
	}
	return c
}

// must is for the steps that lead to what a test is about.
func (h *host) must(t *testing.T, r *request) reply {
	t.Helper()
	got := h.do(t, r)
	if got.err != nil {
		t.Fatalf("%s: %+v\n%s", r.env["CNI_COMMAND"], *got.err, got.Stderr)
	}
	return got
}

func (h *host) add(t *testing.T, container string, addresses ...string) {
	t.Helper()
	h.must(t, h.request("ADD", container, addresses...))
}

func (h *host) del(t *testing.T, container string) {
	t.Helper()
	h.must(t, h.request("DEL", container))
}

func idOf(container string) string {
	return string(attachment.Owner{Network: network, ContainerID: container, IfName: ifName}.ID())
}

// compact is a JSON text without white space, to compare documents byte by byte.
func compact(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return b.String()
}
