package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestGC is A33 to A35. Network pods has a and b, whose namespace is there, and dead, whose namespace is gone; network other
// has one more, which no list of pods speaks of.
func TestGC(t *testing.T) {
	all := []string{"10.1.0.2 a", "10.1.0.3 b", "10.1.0.4 dead", "10.1.0.5 other"}
	alive := []string{"10.1.0.2 a", "10.1.0.3 b", "10.1.0.5 other"}
	other := []string{"10.1.0.5 other"}
	tests := []struct {
		name string
		key  string
		list string
		want []string
	}{
		{"A33 one is valid", "cni.dev/valid-attachments", `[{"containerID": "a", "ifname": "eth0"}]`, []string{"10.1.0.2 a", "10.1.0.5 other"}},
		{"A33 two are valid", "cni.dev/valid-attachments", `[{"containerID": "b", "ifname": "eth0"}, {"containerID": "a", "ifname": "eth0"}]`, alive},
		{"A33 all are", "cni.dev/valid-attachments", `[{"containerID": "b", "ifname": "eth0"}, {"containerID": "a", "ifname": "eth0"}, {"containerID": "dead", "ifname": "eth0"}]`, all},
		{"A33 another interface of a container", "cni.dev/valid-attachments", `[{"containerID": "a", "ifname": "eth1"}]`, other},
		{"A33 none, as CRI-O says it", "cni.dev/valid-attachments", `null`, other},
		{"A33 none", "cni.dev/valid-attachments", `[]`, other},
		{"A34 legacy key", "cni.dev/attachments", `[{"containerID": "b", "ifname": "eth0"}]`, []string{"10.1.0.3 b", "10.1.0.5 other"}},
		{"A34 no key", "somebodyElses", `[]`, alive},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				h.fourPods(t)
				h.must(t, h.gc(tt.key, tt.list))
				if diff := cmp.Diff(tt.want, h.owners(t)); diff != "" {
					t.Errorf("rules, -want +got:\n%s", diff)
				}
				if got := h.records(t); len(got) != len(tt.want) {
					t.Errorf("records %q, want those of %q", got, tt.want)
				}
			})
		}
	})
}

func (h *host) fourPods(t *testing.T) {
	t.Helper()
	gone := netnstest.NewSpace(t, "gone")
	h.add(t, "a", "10.1.0.2")
	h.add(t, "b", "10.1.0.3")
	h.must(t, h.request("ADD", "dead", "10.1.0.4").setenv("CNI_NETNS", gone.Path))
	h.must(t, h.request("ADD", "other", "10.1.0.5").set("name", "other"))
	gone.Remove()
}

// gc has no container, no namespace and no previous result.
func (h *host) gc(key, list string) *request {
	r := h.request("GC", "").set(key, rawJSON(list))
	for _, name := range []string{"CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"} {
		r.setenv(name, "")
	}
	return r
}

// owners are the rules with their owners' names for ids.
func (h *host) owners(t *testing.T) []string {
	t.Helper()
	names := map[string]string{}
	for _, container := range []string{"a", "b", "dead", "lost"} {
		names[idOf(container)] = container
	}
	var out []string
	for _, pod := range h.observe(t, policy.IPv4).Pods {
		address, id, _ := strings.Cut(pod, " ")
		if names[id] == "" {
			names[id] = "other"
		}
		out = append(out, address+" "+names[id])
	}
	return out
}

// TestGCOrphans is A36: rules without record, and records without rules.
func TestGCOrphans(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		h.fourPods(t)
		h.add(t, "lost", "10.1.0.6")
		for _, container := range []string{"lost", "a"} {
			if err := os.Remove(filepath.Join(h.recordsDir(), idOf(container)+".json")); err != nil {
				t.Fatal(err)
			}
		}
		ruleless := *h
		ruleless.Space = netnstest.NewSpace(t, "elsewhere")
		ruleless.Env = h.Env
		ruleless.add(t, "b2", "10.1.0.7")
		h.must(t, h.gc("cni.dev/valid-attachments", `[{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth0"}]`))
		if diff := cmp.Diff([]string{"10.1.0.2 a", "10.1.0.3 b", "10.1.0.5 other"}, h.owners(t)); diff != "" {
			t.Errorf("rules, -want +got:\n%s", diff)
		}
		if got := h.records(t); len(got) != 2 {
			t.Errorf("records %q, want those of b and other", got)
		}
	})
}

// TestGCGoesOn is the end of A35: one record that cannot be read is set aside, named once, and keeps nothing else from going.
func TestGCGoesOn(t *testing.T) {
	for name, content := range map[string]string{
		"half a record": "{", "empty": "", "another owner's": `{"network":"pods","containerID":"x","ifName":"eth0"}`,
		"of a newer release": `{"version":2,"network":"pods","containerID":"a","ifName":"eth0","addresses":["10.1.0.2"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			eachVariant(t, func(t *testing.T, v variant) {
				h := newHost(t, v)
				h.fourPods(t)
				path := filepath.Join(h.recordsDir(), idOf("a")+".json")
				writeFile(t, path, content)
				gc := h.gc("cni.dev/valid-attachments", `[{"containerID": "a", "ifname": "eth0"}]`)
				if got := h.must(t, gc); strings.Count(got.Stderr, idOf("a")) == 0 {
					t.Errorf("the record is not named in %q", got.Stderr)
				}
				if got := h.must(t, gc); got.Stderr != "" {
					t.Errorf("a second GC says %q", got.Stderr)
				}
				if got := readFile(t, path+".unreadable"); string(got) != content {
					t.Errorf("set aside: %q", got)
				}
				if diff := cmp.Diff([]string{"10.1.0.2 a", "10.1.0.5 other"}, h.owners(t)); diff != "" {
					t.Errorf("rules, -want +got:\n%s", diff)
				}
				h.del(t, "a")
				if _, err := os.Stat(path + ".unreadable"); !os.IsNotExist(err) {
					t.Errorf("after DEL the record that was set aside: %v", err)
				}
			})
		})
	}
}

// TestGCOnAFreshHost has nothing to collect and leaves nothing.
func TestGCOnAFreshHost(t *testing.T) {
	netnstest.Require(t, "nft")
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		for _, list := range []string{`null`, `[{"containerID": "a", "ifname": "eth0"}]`} {
			h.must(t, h.gc("cni.dev/valid-attachments", list))
		}
		for _, args := range [][]string{{"nft", "list", "tables"}, {"cat", "/proc/net/ip_tables_names"}} {
			if out := h.Run(t, args...); out != "" {
				t.Errorf("%s: %s", args, out)
			}
		}
	})
}

// TestGCSecondFamily: both families are collected.
func TestGCSecondFamily(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		for container, addresses := range map[string][]string{"a": {"10.1.0.2", "fd00:1::2"}, "b": {"10.1.0.3", "fd00:1::3"}} {
			h.must(t, h.request("ADD", container, addresses...).set("enableIPv6", true))
		}
		if err := os.Remove(filepath.Join(h.recordsDir(), idOf("b")+".json")); err != nil {
			t.Fatal(err)
		}
		h.must(t, h.gc("cni.dev/valid-attachments", `[{"containerID": "a", "ifname": "eth0"}]`).set("enableIPv6", true))
		if got := h.addresses(t); !slices.Equal(got, []string{"10.1.0.2", "fd00:1::2"}) {
			t.Errorf("rules of %q", got)
		}
	})
}
