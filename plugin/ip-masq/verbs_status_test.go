package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestStatus is A37: would an ADD work? It is polled, so it is quick, writes nothing and waits for nobody.
func TestStatus(t *testing.T) {
	tests := []struct {
		name  string
		setUp func(t *testing.T, h *host)
		code  uint
		says  string
	}{
		{"A37 fresh host", func(*testing.T, *host) {}, 0, ""},
		{"A37 pods attached, no agent", one, 0, ""},
		{"A37 no pods left", func(t *testing.T, h *host) { one(t, h); h.del(t, "a") }, 0, ""},
		{"A37 nobody attached, chain empty", func(t *testing.T, h *host) { one(t, h); h.del(t, "a"); h.nat(t, "-F", chain) }, 0, ""},
		{"A37 chain empty", func(t *testing.T, h *host) { one(t, h); h.nat(t, "-F", chain) }, 0, ""},
		{"A37 chain missing", func(t *testing.T, h *host) { one(t, h); h.nat(t, "-F"); h.nat(t, "-X") }, 0, ""},
		{"A37 no iptables", func(t *testing.T, h *host) { h.hide(t, isIPTables) }, 50, "iptables"},
		{"A37 iptables gone under pods", func(t *testing.T, h *host) { one(t, h); h.hide(t, isIPTables) }, 51, "iptables"},
		{"A37 a file for the state directory", func(t *testing.T, h *host) { writeFile(t, h.stateDir, "") }, 50, "directory"},
		{"A37 a file above the state directory", func(t *testing.T, h *host) { writeFile(t, h.stateDir, ""); h.stateDir += "/below" }, 50, "directory"},
		{"A37 a loop for the state directory", loop, 50, "state"},
		{"A37 a file for the records", func(t *testing.T, h *host) { writeFile(t, h.recordsDir(), "") }, 50, "directory"},
		{"A37 a record that cannot be read", func(t *testing.T, h *host) { one(t, h); writeFile(t, h.recordsDir()+"/"+idOf("a")+".json", "{") }, 0, ""},
		{"A37 locks held by others", func(t *testing.T, h *host) { one(t, h); h.holdLocks(t) }, 0, ""},
	}
	eachIPTables(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				tt.setUp(t, h)
				// The machine without iptables is one without nftables too: what is asked is whether STATUS looks.
				r := h.status().set("backend", "iptables")
				h.unchanged(t, func() {
					got := h.do(t, r).want(t, tt.code)
					if got.err != nil && !strings.Contains(got.err.Msg, tt.says) {
						t.Errorf("%q does not say %q", got.err.Msg, tt.says)
					}
					// Half a second is for starting the program on a busy machine.
					if h.through == nil && got.took > netnstest.Limit(1500*time.Millisecond) {
						t.Errorf("took %v", got.took)
					}
				})
			})
		}
	})
}

func (h *host) status() *request {
	r := h.request("STATUS", "")
	for _, name := range []string{"CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"} {
		r.setenv(name, "")
	}
	return r
}

func one(t *testing.T, h *host) {
	t.Helper()
	h.add(t, "a", "10.1.0.2")
}

func loop(t *testing.T, h *host) {
	t.Helper()
	if err := os.Symlink(h.stateDir, h.stateDir); err != nil {
		t.Fatal(err)
	}
}

// TestStatusExecs: at most two processes, which ask whether iptables starts, and no table comes into being.
func TestStatusExecs(t *testing.T) {
	netnstest.Require(t, "strace", "nft")
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		n, got := h.count(t, h.status())
		if got.want(t, 0); n > 2 {
			t.Errorf("%d processes on a fresh host", n)
		}
		if out := h.Run(t, "nft", "list", "tables") + h.Run(t, "cat", "/proc/net/ip_tables_names"); out != "" {
			t.Errorf("made %s", out)
		}
		h.must(t, h.request("ADD", "a", "10.1.0.2", "fd00:1::2").set("enableIPv6", true))
		if n, _ := h.count(t, h.status().set("enableIPv6", true)); n > 2 {
			t.Errorf("%d processes with pods", n)
		}
	})
}

// TestStatusIsWhatAnAddWouldDo: whatever STATUS says, the ADD that comes next does.
func TestStatusIsWhatAnAddWouldDo(t *testing.T) {
	tests := []struct {
		name  string
		setUp func(t *testing.T, h *host)
	}{
		{"the first ADD met a held lock", func(t *testing.T, h *host) {
			release := netnstest.HoldLock(t, filepath.Join(h.stateDir, "lock"))
			h.do(t, h.request("ADD", "b", "10.1.0.3")).want(t, 11)
			release()
		}},
		{"the first ADD met a held xtables lock", func(t *testing.T, h *host) {
			if h.Kind == backend.IPTablesLegacy {
				release := netnstest.HoldLock(t, h.lockFile())
				h.do(t, h.request("ADD", "b", "10.1.0.3").set("backend", "iptables")).want(t, 11)
				release()
			}
		}},
		{"the chain was flushed", func(t *testing.T, h *host) {
			one(t, h)
			if h.IsIPTables() {
				h.nat(t, "-F", chain)
			}
		}},
		{"everything was flushed", func(t *testing.T, h *host) {
			one(t, h)
			h.Run(t, "nft", "flush", "ruleset")
			if h.Kind == backend.IPTablesLegacy {
				h.nat(t, "-F")
				h.nat(t, "-X")
			}
		}},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				tt.setUp(t, h)
				h.must(t, h.status())
				h.add(t, "c", "10.1.0.4")
			})
		}
	})
}

// TestStatusForgetsAFailure: what the first ADD lacked may be there now, and a runtime that is told no sends no second ADD.
func TestStatusForgetsAFailure(t *testing.T) {
	eachIPTables(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		path := h.path()
		h.hide(t, isIPTables)
		h.do(t, h.request("ADD", "a", "10.1.0.2").set("backend", "iptables")).want(t, 101)
		h.SetPATH(path)
		h.through = nil
		record := filepath.Join(h.stateDir, "backend.json")
		failed := func(ago time.Duration) {
			d := map[string]any{}
			unmarshal(t, string(readFile(t, record)), &d)
			d["failedAt"] = time.Now().Add(-ago)
			text, _ := json.Marshal(d)
			writeFile(t, record, string(text))
		}
		failed(29 * time.Second)
		h.do(t, h.status()).want(t, 50)
		failed(31 * time.Second)
		h.do(t, h.status()).want(t, 0)
		failed(-time.Hour) // the clock was set back
		h.do(t, h.status()).want(t, 0)
		h.add(t, "a", "10.1.0.2")
	})
}
