package translog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// rig is a node on which other rules masquerade, with records of pods and a log.
type rig struct {
	*netnstest.Node
	*Logger
	options Options
	store   attachment.Store
	stop    func()
}

func newRig(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	netnstest.Require(t, "nft", "conntrack")
	r := &rig{Node: netnstest.NewNode(t)}
	r.Run(t, "nft", "table inet x { chain c { type nat hook postrouting priority 100; oifname internet masquerade; }; }")
	r.store = attachment.Store{Dir: filepath.Join(r.StateDir, "attachments")}
	if err := os.MkdirAll(r.store.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.options = Options{
		Path: filepath.Join(t.TempDir(), "log"), MaxSize: 1 << 20, MaxFiles: 3, Records: r.store.Dir, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&r.options)
	}
	return r
}

func (r *rig) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	err := r.Do(func() (err error) { r.Logger, err = Start(ctx, r.options); return err })
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	r.stop = func() { cancel(); r.Wait() }
	t.Cleanup(r.stop)
}

// add is what the plugin does at the ADD of a pod.
func (r *rig) add(t *testing.T, name string, addrs ...netip.Addr) attachment.Attachment {
	t.Helper()
	a := attachment.Attachment{
		Owner:     attachment.Owner{Network: "net", ContainerID: name, IfName: "eth0"},
		Pod:       attachment.Pod{Namespace: "shop", Name: name},
		Addresses: addrs,
	}
	if err := r.store.Put(a); err != nil {
		t.Fatal(err)
	}
	return a
}

func (r *rig) del(t *testing.T, a attachment.Attachment) {
	t.Helper()
	if err := r.store.Delete(a.ID()); err != nil {
		t.Fatal(err)
	}
}

// lines reads the log as ACTION POD SOURCE-PORT>NAT-PORT.
func (r *rig) lines(t *testing.T) (all []string) {
	t.Helper()
	for text := range strings.Lines(content(t, r.options.Path)) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		all = append(all, fmt.Sprintf("%s %s as %s", strings.TrimPrefix(l.Action, "connection-"), l.Name, netip.AddrPortFrom(l.NAT, l.NATPort)))
	}
	slices.Sort(all)
	return all
}

func (r *rig) want(t *testing.T, when string, want ...string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	eventually(t, func() error {
		if got = r.lines(t); !slices.Equal(got, want) {
			return fmt.Errorf("%s:\ngot  %s\nwant %s", when, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
		return nil
	})
}

func connect(t *testing.T, pod *netnstest.Pod, network string, to netip.Addr) netip.AddrPort {
	t.Helper()
	as, err := pod.Seen(network, to)
	if err != nil {
		t.Fatal(err)
	}
	return as
}

func (r *rig) forget(t *testing.T) {
	t.Helper()
	r.Run(t, "conntrack", "-F")
}

// TestFirstPodOfTheNode: the log begins before there is a directory of records, which the first pod's record makes.
func TestFirstPodOfTheNode(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Starts = true })
	if err := os.Remove(r.store.Dir); err != nil {
		t.Fatal(err)
	}
	pod := r.AddPod(t, "pod", "10.244.0.5")
	r.start(t)
	time.Sleep(netnstest.Limit(100 * time.Millisecond)) // the log has looked for the directory
	r.add(t, "first", pod.Addrs...)
	as := connect(t, pod, "udp", r.Internet.IPv4)
	r.forget(t)
	r.want(t, "after its end", fmt.Sprintf("started first as %s", as), fmt.Sprintf("ended first as %s", as))
}

// TestReuse: an address goes from pod to pod twice a second, while connections of former ones are still tracked. Each
// line names the pod that had the address when the connection began.
func TestReuse(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Starts = true })
	pod := r.AddPod(t, "pod", "10.244.0.5", "fd00:244::5")
	r.start(t)
	var want []string
	began := time.Now()
	for i := range 8 {
		name := fmt.Sprintf("pod-%d", i)
		a := r.add(t, name, pod.Addrs...)
		as := connect(t, pod, "udp", []netip.Addr{r.Internet.IPv4, r.Internet.IPv6}[i%2])
		time.Sleep(netnstest.Limit(250 * time.Millisecond))
		r.del(t, a)
		time.Sleep(netnstest.Limit(250 * time.Millisecond))
		want = append(want, fmt.Sprintf("started %s as %s", name, as), fmt.Sprintf("ended %s as %s", name, as))
	}
	t.Logf("8 pods one after the other within %v", time.Since(began))
	last := r.add(t, "last", pod.Addrs...)
	connect(t, pod, "udp", r.Corp.IPv4) // keeps its address
	r.forget(t)
	r.want(t, "after the end of all", want...)
	r.del(t, last)
	if c := r.Counts(); c.Lines != 16 || c.Lost+c.Overflows+c.Unseen != 0 {
		t.Errorf("%+v", c)
	}
}

// TestReuseAtOnce: pods come and go faster than their records can be read. A line may name no pod, and never another one.
func TestReuseAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Starts = true })
	pod := r.AddPod(t, "pod", "10.244.0.5")
	before := r.add(t, "before", pod.Addrs...)
	r.start(t)
	r.del(t, before)
	want := map[string]string{}
	for i := range 200 {
		name := fmt.Sprintf("pod-%d", i)
		a := r.add(t, name, pod.Addrs...)
		as := connect(t, pod, "udp", r.Internet.IPv4).String()
		if _, twice := want[as]; twice {
			name = "" // the pod's port came again, so it is one connection of two pods
		}
		want[as] = name
		r.del(t, a)
	}
	r.add(t, "last", pod.Addrs...)
	r.forget(t)
	eventually(t, func() error {
		if n := len(r.lines(t)); n != 2*len(want) {
			return fmt.Errorf("%d lines of %d", n, 2*len(want))
		}
		return nil
	})
	named := 0
	for _, text := range r.lines(t) {
		fields := strings.Fields(text)
		if as := fields[len(fields)-1]; len(fields) == 4 {
			named++
			if want[as] != "" && fields[1] != want[as] {
				t.Errorf("%s: it was %s", text, want[as])
			}
		}
	}
	t.Logf("%d of %d lines name a pod", named, 2*len(want))
}

// TestOthers: whoever is not a pod on record is not logged, unless the agent masquerades all, and neither is an excluded
// destination.
func TestOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options)
		want   []string // of a pod, a stranger, and a pod to the excluded destination
	}{
		"pods":     {nil, []string{"pod", "", "pod"}},
		"all":      {func(o *Options) { o.All = func() bool { return true } }, []string{"pod", "nobody", "pod"}},
		"excluded": {func(o *Options) { o.Exclude = []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")} }, []string{"pod", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.change)
			pod, other := r.AddPod(t, "pod", "10.244.0.5", "fd00:244::5"), r.AddPod(t, "other", "10.244.0.6")
			r.add(t, "pod", pod.Addrs...)
			r.start(t)
			var want []string
			for i, as := range []netip.AddrPort{connect(t, pod, "tcp", r.Internet.IPv4), connect(t, other, "tcp", r.Internet.IPv4), connect(t, pod, "tcp", r.Internet.IPv6)} {
				if who := c.want[i]; who != "" {
					want = append(want, strings.ReplaceAll(fmt.Sprintf("ended %s as %s", who, as), "nobody", ""))
				}
			}
			r.forget(t)
			r.want(t, name, want...)
		})
	}
}

// TestLostEvents: the socket's buffer is made so small that the kernel drops events. A list of the table makes up for them: no
// connection is missing and none is there twice.
func TestLostEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	pod := r.AddPod(t, "pod", "10.244.0.5")
	r.add(t, "pod", pod.Addrs...)
	r.start(t)
	if err := unix.SetsockoptInt(r.events.FD(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1); err != nil {
		t.Fatal(err)
	}
	var want []string
	r.mu.Lock() // the reader stands still
	for range 30 {
		want = append(want, "ended pod as "+connect(t, pod, "udp", r.Internet.IPv4).String())
	}
	r.mu.Unlock()
	eventually(t, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.open) != 30 {
			return fmt.Errorf("%d connections are known to be open, want 30", len(r.open))
		}
		return nil
	})
	r.mu.Lock()
	r.forget(t)
	r.mu.Unlock()
	r.want(t, "after lost ends", want...)
	if c := r.Counts(); c.Overflows == 0 || c.Unseen == 0 || c.Lost != 0 {
		t.Errorf("%+v", c)
	}
}

// TestRestart: connections that were there before are in the log as well, those of one run once.
func TestRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	if err := r.Sysctl("net/netfilter/nf_conntrack_timestamp=1"); err != nil {
		t.Fatal(err)
	}
	pod := r.AddPod(t, "pod", "10.244.0.5")
	r.add(t, "pod", pod.Addrs...)
	r.start(t)
	first := connect(t, pod, "udp", r.Internet.IPv4)
	r.forget(t)
	r.want(t, "first run", "ended pod as "+first.String())
	second := connect(t, pod, "udp", r.Internet.IPv4)
	r.stop()
	r.start(t)
	third := connect(t, pod, "udp", r.Internet.IPv4)
	eventually(t, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.open) != 2 {
			return fmt.Errorf("%d open", len(r.open))
		}
		return nil
	})
	r.forget(t)
	r.want(t, "second run", "ended pod as "+first.String(), "ended pod as "+second.String(), "ended pod as "+third.String())
}

// TestLostLines: a directory that is not there loses lines and says so once; everything else goes on.
func TestLostLines(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	r := newRig(t, func(o *Options) {
		o.Path = filepath.Join(o.Path+".d", "log")
		o.Log = slog.New(slog.NewTextHandler(&logged, nil))
	})
	pod := r.AddPod(t, "pod", "10.244.0.5")
	r.add(t, "pod", pod.Addrs...)
	r.start(t)
	for i := range 2 {
		connect(t, pod, "udp", r.Internet.IPv4)
		r.forget(t)
		eventually(t, func() error {
			if c := r.Counts(); c.Lost != uint64(i+1) {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
	}
	if err := os.Mkdir(filepath.Dir(r.options.Path), 0o700); err != nil {
		t.Fatal(err)
	}
	as := connect(t, pod, "udp", r.Internet.IPv4)
	r.forget(t)
	r.want(t, "with the directory", "ended pod as "+as.String())
	r.stop()
	if n := strings.Count(logged.String(), "lines of the translation log are lost"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, &logged)
	}
}

// TestSearch: who asks about a connection that is over, about one that is open, and about ports that nobody had.
func TestSearch(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	pod := r.AddPod(t, "pod", "10.244.0.5")
	a := r.add(t, "one", pod.Addrs...)
	r.start(t)
	over := connect(t, pod, "udp", r.Internet.IPv4)
	r.forget(t)
	r.want(t, "first", "ended one as "+over.String())
	r.del(t, a)
	r.add(t, "two", pod.Addrs...)
	open := connect(t, pod, "tcp", r.Internet.IPv4)
	for name, c := range map[string]struct {
		query Query
		live  string
		past  string
	}{
		"over":               {Query{Translated: over}, "", "one"},
		"over, protocol":     {Query{Translated: over, Proto: "udp", Dst: r.Internet.IPv4, DstPort: netnstest.Port}, "", "one"},
		"over, other proto":  {Query{Translated: over, Proto: "tcp"}, "", ""},
		"over, other dst":    {Query{Translated: over, Dst: r.Corp.IPv4}, "", ""},
		"over, other port":   {Query{Translated: over, Dst: r.Internet.IPv4, DstPort: 1}, "", ""},
		"over, long before":  {Query{Translated: over, At: time.Now().Add(-time.Hour)}, "", ""},
		"over, time to come": {Query{Translated: over, At: time.Now().Add(time.Hour)}, "", ""},
		"open":               {Query{Translated: open, Proto: "tcp"}, "two", ""},
		"nobody's":           {Query{Translated: netip.AddrPortFrom(over.Addr(), 1)}, "", ""},
	} {
		for _, logger := range []*Logger{r.Logger, nil} {
			var live []Connection
			err := r.Do(func() (err error) { live, err = Live(c.query, logger, r.store.Dir); return err })
			if got := names(live); err != nil || got != c.live {
				t.Errorf("%s: live %q, want %q (%v)", name, got, c.live, err)
			}
		}
		past, err := Search(c.query, r.options.Path, 3)
		if got := names(past.Found); err != nil || got != c.past || past.From.IsZero() || past.To.Before(past.From) {
			t.Errorf("%s: past %q, want %q (%v, from %v to %v)", name, got, c.past, err, past.From, past.To)
		}
	}
}

func names(all []Connection) string {
	var names []string
	for _, c := range all {
		if c.Owner != nil {
			names = append(names, c.Owner.Pod.Name)
		}
	}
	return strings.Join(names, " ")
}

// eventually repeats a check until it passes, and fails with its last error.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(netnstest.Limit(5 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
		if err = check(); err == nil || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
