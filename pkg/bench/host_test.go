package bench

import (
	"fmt"
	"net/rpc"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// host is a node of its own for one subject, and a worker in it.
type host struct {
	*netnstest.Node
	client *rpc.Client
}

// newHost makes a host whose iptables is of the variant, "nft" or "legacy". A tracer, if any, runs the worker.
func newHost(t testing.TB, variant string, tracer ...string) *host {
	t.Helper()
	h := &host{Node: netnstest.NewNode(t)}
	h.SetPATH(netnstest.IPTables(t, variant))
	h.startWorker(t, tracer)
	return h
}

func (h *host) startWorker(t testing.TB, tracer []string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "worker")
	process := h.Start(t, netnstest.Cmd{Args: append(tracer, self), Env: []string{envWorker + "=" + socket}})
	netnstest.Eventually(t, 20*time.Second, "a worker that listens", func() bool {
		h.client, err = rpc.Dial("unix", socket)
		return err == nil
	})
	t.Cleanup(func() {
		_ = h.client.Close()
		<-process.Done
	})
}

// call ends the test on a failure: a comparison with one subject missing is none.
func (h *host) call(t testing.TB, method string, args, reply any) {
	t.Helper()
	if err := h.client.Call("Worker."+method, args, reply); err != nil {
		t.Fatalf("%s: %v", method, err)
	}
}

// exec runs a program that has to succeed.
func (h *host) exec(t testing.TB, c Command) Outcome {
	t.Helper()
	o := h.try(t, c)
	if o.Code != 0 {
		t.Fatalf("%s: exit %d\n%s%s", strings.Join(c.Args, " "), o.Code, o.Stdout, o.Stderr)
	}
	return o
}

func (h *host) try(t testing.TB, c Command) (o Outcome) {
	t.Helper()
	h.call(t, "Run", c, &o)
	return o
}

// restore feeds iptables-restore.
func (h *host) restore(t testing.TB, rules string) Outcome {
	t.Helper()
	return h.exec(t, Command{Args: []string{"iptables-restore", "-w", "--noflush"}, Stdin: rules})
}

// newAgent makes a host whose worker is an agent of the kind, with so many pods on record.
func newAgent(t testing.TB, kind backend.Kind, pods int, tracer ...string) *host {
	t.Helper()
	h := newHost(t, variantOf(kind), tracer...)
	netns := attachment.StatNetNS(h.NewPod(t, "present").Path) // alive: an agent looks
	store := attachment.Store{Dir: filepath.Join(h.StateDir, "attachments")}
	for i := range pods {
		owner := attachment.Owner{Network: "bench", ContainerID: fmt.Sprintf("present-%05d", i), IfName: "eth0"}
		if err := store.Put(attachment.Attachment{Owner: owner, NetNS: netns, Addresses: addresses(i)}); err != nil {
			t.Fatal(err)
		}
	}
	h.call(t, "Open", NodeOptions{StateDir: h.StateDir, DataDir: h.DataDir, Choice: choiceOf(kind)}, &struct{}{})
	return h
}

// sync fails the test where another kind was chosen than the one to be measured.
func (h *host) sync(t testing.TB, kind backend.Kind, p policy.Policy) (s Synced) {
	t.Helper()
	h.call(t, "Sync", p, &s)
	if s.Backend != kind {
		t.Fatalf("the agent chose %s, want %s", s.Backend, kind)
	}
	return s
}

// kinds are all backends of the build: a new one takes part without a word here.
func kinds() []backend.Kind { return registry.Auto.Kinds() }

// choiceOf is what a user asks for to get the kind.
func choiceOf(kind backend.Kind) registry.Choice {
	for _, choice := range registry.Choices() {
		if choice != registry.Auto && choice.Allows(kind) {
			return choice
		}
	}
	return registry.Auto
}

// variantOf is the iptables that a host of the kind has. Beside a backend that does without it stands Debian's default.
func variantOf(kind backend.Kind) string {
	if kind == backend.IPTablesLegacy {
		return "legacy"
	}
	return "nft"
}
