package nftables

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

func TestChangesOf(t *testing.T) {
	for release, want := range map[string]changes{
		"5.10.0-32-cloud-amd64": SecondSet, "5.15.0": SecondSet, "6.1.0-50-amd64": SecondSet, "6.12.117+deb13-cloud-amd64": SecondSet,
		"6.18.0": SecondSet, "6.18.43": SecondSet, "6.18.44-fc-v595": InPlace, "6.19.3": SecondSet, "6.19.4": InPlace, "6.20": SecondSet,
		"7.0-rc1": InPlace, "7.2.13+deb14-cloud-amd64": InPlace, "10.0": InPlace, "": SecondSet, "odd": SecondSet,
	} {
		if got := changesOf(release); got != want {
			t.Errorf("%q: %s, want %s", release, got, want)
		}
	}
}

// TestSecondSetCountsOn: the counter of the rule that is moved to another set goes on.
func TestSecondSetCountsOn(t *testing.T) {
	netnstest.Require(t, "nft")
	n := newNode(t)
	n.Backend = NewWith(SecondSet)
	one, two := goldenStates["default"](), goldenStates["default"]()
	two.Tables[0].Destinations = two.Tables[0].Destinations[:2]
	n.sync(one)
	n.Run(t, "sh", "-ec", "ip link set lo up; ip addr add 10.244.0.5/32 dev lo; ip route add 10.0.0.0/8 dev lo")
	count := func(want ruleset.State, packets uint64) {
		t.Helper()
		err := n.Do(func() error {
			counters, err := n.Counters(context.Background(), want.Settings, policy.IPv4)
			if err == nil && counters[0].Packets != packets {
				t.Errorf("%+v, want %d packets", counters, packets)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, state := range []ruleset.State{two, one, two} {
		n.Run(t, "sh", "-c", "echo x | timeout 1 bash -c 'cat > /dev/udp/10.9.9.9/"+string(rune('1'+i))+"000'")
		n.sync(state)
		count(state, uint64(i+1))
	}
	if list := n.Run(t, "nft", "list", "table", "inet", tableName); strings.Contains(list, "set keep4 ") || !strings.Contains(list, "set keep4.b ") {
		t.Errorf("not in the second set alone:\n%s", list)
	}
}

// before skips a test on Linux before 5.minor.
func before(t *testing.T, minor int, why string) {
	t.Helper()
	if v := versionOf(kernelRelease()); v[0] < 5 || v[0] == 5 && v[1] < minor {
		t.Skipf("Linux before 5.%d %s", minor, why)
	}
}

// TestSecondSetAfterKill stops after a second set was filled and before a rule uses it: the next change goes on from there,
// wherever it leads.
func TestSecondSetAfterKill(t *testing.T) {
	netnstest.Require(t, "nft")
	one, two, three := goldenStates["default"](), goldenStates["default"](), goldenStates["exceptions"]()
	two.Tables[0].Destinations = two.Tables[0].Destinations[:2]
	for _, next := range []ruleset.State{one, two, three} {
		n := newNode(t)
		n.Backend = NewWith(SecondSet)
		n.sync(one)
		err := n.Do(func() error {
			return session(context.Background(), func(c *nfnl.Conn) error {
				got, err := read(context.Background(), c)
				if err != nil {
					return err
				}
				return c.Commit(plans(aim(two, got, SecondSet, countLimit), got).fill)
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		if list := n.Run(t, "nft", "list", "table", "inet", tableName); !strings.Contains(list, "set keep4 ") || !strings.Contains(list, "set keep4.b ") {
			t.Fatalf("not both sets:\n%s", list)
		}
		n.sync(next)
		if list := n.Run(t, "nft", "list", "table", "inet", tableName); strings.Contains(list, "set keep4 ") == strings.Contains(list, "set keep4.b ") {
			t.Errorf("not one set:\n%s", list)
		}
		n.holds(strings.TrimSpace(Render(next)))
	}
}

// TestOwnedTable: a table of our name that belongs to a process is refused in a sentence, and its end is noticed although the
// kernel may not count it as a change.
func TestOwnedTable(t *testing.T) {
	netnstest.Require(t, "nft")
	before(t, 12, "has no tables that belong to a process")
	n := newNode(t)
	var owner *nfnl.Conn
	err := n.Do(func() (err error) {
		if owner, err = nfnl.Dial(); err != nil {
			return err
		}
		b := nfnl.NewBatch()
		b.AddTable(tableName, tableOwner, nfnl.Excl)
		return owner.Commit(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := goldenStates["default"]()
	one := want.Only(ruleset.Pods(goldenPod("10.244.0.9")))
	var got backend.Observed
	for name, call := range map[string]func() error{
		"Apply": func() (err error) {
			if got, err = n.Observe(context.Background(), want.Settings, policy.IPv4); err == nil {
				_, err = n.Apply(context.Background(), got, want)
			}
			return err
		},
		"Remove":    func() error { return n.Backend.Remove(context.Background(), want.Settings, policy.IPv4) },
		"RemoveAll": func() error { return n.RemoveAll(context.Background()) },
		"Attach":    func() error { return n.Attach(context.Background(), one) },
	} {
		if err := n.Do(call); !errors.Is(err, backend.ErrBusy) && !errors.Is(err, backend.ErrIncomplete) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	_ = owner.Close()
	if err := n.Do(func() error { _, err := n.Apply(context.Background(), got, want); return err }); err != nil {
		t.Errorf("Apply after the table went, on the reading from before: %v", err)
	}
	n.sync(want)
	n.holds(golden(t, "default"))
}

// TestLongSetsAreReadOnce counts the readings of the set of destinations while pods and other software's objects come and go.
func TestLongSetsAreReadOnce(t *testing.T) {
	netnstest.Require(t, "nft")
	before(t, 14, "does not tell network namespaces apart, so nothing is remembered")
	n := newNode(t)
	n.Backend = NewWith(InPlace) // so that the set keeps its name
	want := goldenStates["default"]()
	n.sync(want)
	remembered.forget()
	n.sync(want)
	unchanged := func(want ...string) {
		t.Helper()
		err := n.Do(func() error {
			return session(context.Background(), func(c *nfnl.Conn) error {
				if _, err := c.Settled(); err != nil {
					return err
				}
				sets := remembered.unchanged(c)
				for _, name := range want {
					if _, there := sets[name]; !there {
						t.Errorf("%s would be read again", name)
					}
				}
				if len(sets) != len(want) {
					t.Errorf("%d sets would not be read again, want %q", len(sets), want)
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	unchanged("keep4")
	for _, script := range []string{
		"add element inet ip-masq-agent pods4 { 10.0.0.1 }",
		"flush chain inet ip-masq-agent postrouting",
		"add table inet other; add set inet other keep4 { type ipv4_addr; }; add element inet other keep4 { 1.1.1.1 }",
		"add table ip ip-masq-agent; add set ip ip-masq-agent keep4 { type ipv4_addr; }; delete table ip ip-masq-agent",
	} {
		n.Run(t, "nft", script)
		unchanged("keep4")
		n.sync(want)
		n.holds(golden(t, "default"))
		unchanged("keep4")
	}
	for _, script := range []string{
		"add element inet ip-masq-agent keep4 { 8.8.8.0/24 }",
		"delete element inet ip-masq-agent keep4 { 10.0.0.0/8 }",
		"flush set inet ip-masq-agent keep4",
		"delete table inet ip-masq-agent",
		"flush ruleset",
	} {
		n.Run(t, "nft", script)
		unchanged()
		n.sync(want)
		n.holds(golden(t, "default"))
	}
	n.sync(want)
	var storm strings.Builder
	storm.WriteString("add table inet x\nadd chain inet x c\n")
	for range 20000 {
		storm.WriteString("add rule inet x c counter\n")
	}
	if r, err := n.Exec(context.Background(), netnstest.Cmd{Args: []string{"nft", "-f", "-"}, Stdin: storm.String()}); err != nil || r.Code != 0 {
		t.Fatalf("%v\n%s", err, r.Stderr)
	}
	unchanged()
}
