package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Everything here ends within fifteen seconds, which do checks for every run, with one error, and loses nothing: pod b, attached
// while all was well, keeps its rule and its record.

// iptablesOnly asks for iptables, since a machine without it may well have nftables.
func (h *host) iptablesOnly(verb, container string, addresses ...string) *request {
	return h.request(verb, container, addresses...).set("backend", "iptables")
}

// TestBadPrograms are iptables that cannot be used in one way or another: none at all, and wrappers that misbehave. The first
// pod meets them on a fresh host, or on one with a pod.
func TestBadPrograms(t *testing.T) {
	const input = "in=$(cat; echo .); in=${in%.}; "
	tests := []struct {
		name   string
		script string // empty: no iptables at all
		fresh  uint   // code of the first ADD
		steady uint   // code of one beside a pod
		says   string
	}{
		{"none", "", 101, 101, "iptables"},
		{"drops a match silently", input + `printf %s "$in" | sed 's/-m addrtype ! --dst-type LOCAL//' | "$REAL" "$@"`, 101, 0, "dst-type"},
		{"refuses a match", input + `case $in in *addrtype*) echo no such match >&2; exit 2;; esac; printf %s "$in" | "$REAL" "$@"`, 101, 0, "no such match"},
		{"without a kernel", `echo protocol not supported >&2; exit 3`, 101, 101, "not supported"},
		{"always fails", `echo 'broken' >&2; exit 1`, 101, 100, "broken"},
		{"does nothing", `exit 0`, 101, 0, "does not hold"},
		{"prints garbage", `echo '-A "'; echo '{}'; exit 0`, 101, 0, "does not hold"},
		{"dies", `kill -SEGV $$`, 101, 100, "signal"},
		{"is killed", `kill -KILL $$`, 11, 11, "signal"},
	}
	eachIPTables(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				fresh, steady := newHost(t, v), newHost(t, v)
				steady.add(t, "b", "10.1.0.3")
				for h, code := range map[*host]uint{fresh: tt.fresh, steady: tt.steady} {
					bad := h.with(t, tt.script)
					got := bad.do(t, bad.iptablesOnly("ADD", "a", "10.1.0.2")).want(t, code)
					if got.err != nil && !strings.Contains(got.err.Msg, tt.says) {
						t.Errorf("%q does not say %q", got.err.Msg, tt.says)
					}
				}
				fresh.wantNothing(t)
				steady.wantAfterBad(t, tt.steady != 0)
			})
		}
	})
}

// with is the same host with other programs.
func (h *host) with(t *testing.T, script string) *host {
	t.Helper()
	bad := *h
	bad.Space = &netnstest.Space{}
	*bad.Space = *h.Space
	if script == "" {
		bad.hide(t, isIPTables)
	} else {
		bad.wrap(t, script)
	}
	return &bad
}

// wantNothing managed by ip-masq in the kernel, not even a test rule, and no record.
func (h *host) wantNothing(t *testing.T) {
	t.Helper()
	for _, line := range h.save(t, policy.IPv4) {
		if strings.Contains(line, "IP-MASQ") {
			t.Errorf("left: %s", line)
		}
	}
	if records := h.records(t); records != nil {
		t.Errorf("left: records %q", records)
	}
}

// wantAfterBad: b is as it was; a comes with the next ADD, by good programs, and goes.
func (h *host) wantAfterBad(t *testing.T, failed bool) {
	t.Helper()
	if failed {
		h.wantTable(t, policy.IPv4, h.defaultTable(policy.IPv4, podLine("10.1.0.3", "b")))
	}
	h.add(t, "a", "10.1.0.2")
	h.wantPods(t, podLine("10.1.0.3", "b"), podLine("10.1.0.2", "a"))
	h.del(t, "a")
	h.wantPods(t, podLine("10.1.0.3", "b"))
}

// TestWithoutRandomFully: an iptables or a kernel from before random ports works, without them.
func TestWithoutRandomFully(t *testing.T) {
	eachIPTables(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		h.wrap(t, `in=$(cat; echo .); in=${in%.}; case $in in *random-fully*) echo 'unknown option "--random-fully"' >&2; exit 2;; esac; printf %s "$in" | "$REAL" "$@"`)
		want := h.defaultTable(policy.IPv4, podLine("10.1.0.2", "a"), podLine("10.1.0.3", "b"))
		last := len(want.Chain) - 1
		want.Chain[last] = strings.TrimSuffix(want.Chain[last], " --random-fully")
		for container, address := range addressOf {
			h.add(t, container, address)
			h.must(t, h.request("CHECK", container, address))
		}
		h.wantTable(t, policy.IPv4, want)
		h.sync(t, "")
		h.wantTable(t, policy.IPv4, want)
		h.del(t, "a")
	})
}

// TestBadStateDir is a state directory that cannot be written, for ADD, STATUS and DELs. A full one must still let pods go.
func TestBadStateDir(t *testing.T) {
	tests := []struct {
		name string
		harm func(t *testing.T, h *host)
		says string
		del  uint
	}{
		{"full", fill, "no space left", 0},
		{"read-only", readOnly, "read-only", 100},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				h.tinyStateDir(t)
				h.add(t, "b", "10.1.0.3")
				tt.harm(t, h)
				for _, got := range []reply{
					h.do(t, h.request("ADD", "a", "10.1.0.2")).want(t, 100),
					h.do(t, h.status()).want(t, 51),
				} {
					if got.err != nil && !strings.Contains(got.err.Msg, tt.says) {
						t.Errorf("%q does not say %q", got.err.Msg, tt.says)
					}
				}
				h.must(t, h.request("CHECK", "b", "10.1.0.3"))
				h.wantPods(t, podLine("10.1.0.3", "b"))
				h.do(t, h.request("DEL", "x")).want(t, 0)
				h.do(t, h.request("DEL", "b")).want(t, tt.del)
				if tt.del == 0 {
					h.wantPods(t)
				}
			})
		}
	})
}

// tinyStateDir mounts a file system of its own.
func (h *host) tinyStateDir(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(h.stateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	netnstest.OnExit(t, func() { _ = unix.Unmount(h.stateDir, unix.MNT_DETACH) })
	if err := unix.Mount("tmpfs", h.stateDir, "tmpfs", 0, "size=64k,mode=755"); err != nil {
		t.Fatal(err)
	}
}

func fill(t *testing.T, h *host) {
	t.Helper()
	file, err := os.Create(filepath.Join(h.stateDir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for err == nil {
		_, err = file.Write(make([]byte, 512))
	}
}

func readOnly(t *testing.T, h *host) {
	t.Helper()
	if err := unix.Mount("", h.stateDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}

// TestNoStateDir is a place where no state directory can be. Nothing is on record there, so a pod may go.
func TestNoStateDir(t *testing.T) {
	tests := []struct {
		name string
		harm func(t *testing.T, h *host)
	}{
		{"a file", func(t *testing.T, h *host) { writeFile(t, h.stateDir, "") }},
		{"below a file", func(t *testing.T, h *host) { writeFile(t, h.stateDir+"/x", ""); h.stateDir += "/x" }},
		{"a loop", loop},
		{"a dangling link", func(t *testing.T, h *host) {
			if err := os.Symlink("/no/such/dir", h.stateDir); err != nil {
				t.Fatal(err)
			}
		}},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				tt.harm(t, h)
				if got := h.do(t, h.request("ADD", "a", "10.1.0.2")).want(t, 100); got.err != nil && !strings.Contains(got.err.Msg, h.stateDir) {
					t.Errorf("%q does not name %s", got.err.Msg, h.stateDir)
				}
				h.wantTable(t, policy.IPv4, table{})
				h.del(t, "a")
			})
		}
	})
}
