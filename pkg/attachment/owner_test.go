package attachment

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
)

// odd are names that runtimes and users come up with, and some that only an attacker would.
var odd = []string{
	"", "pods", "PODS", "kindnet", "a b", " ", "pods ", `a"b`, `a'b`, `a\b`, "a\nCOMMIT", "a\x00b", "-j ACCEPT", "ä", "网络", "..", "../../etc",
	strings.Repeat("n", 200), strings.Repeat("ü", 100), "a;b", "$(id)", "%s%d", "*nat", "#",
}

var (
	hex32     = regexp.MustCompile(`^[0-9a-f]{32}$`)
	plainText = regexp.MustCompile(`^[A-Za-z0-9._-]+ [A-Za-z0-9._-]+ [A-Za-z0-9._-]+$`)
)

// TestIDsAreDistinctAndSafe puts every odd name in every place.
func TestIDsAreDistinctAndSafe(t *testing.T) {
	seen := map[ID]Owner{}
	for _, network := range odd {
		for _, container := range odd {
			for _, ifName := range odd {
				owner := Owner{network, container, ifName}
				id := owner.ID()
				if other, taken := seen[id]; taken && !joined(owner, other) {
					t.Fatalf("%q and %q have the id %s", owner, other, id)
				}
				seen[id] = owner
				label := owner.Label()
				if !hex32.MatchString(string(id)) || !id.Valid() || !id.Of(network) || id != owner.ID() || !plainText.MatchString(label) || len(label) > 70 {
					t.Fatalf("%q has id %s, label %q", owner, id, label)
				}
			}
		}
	}
}

// joined owners differ only in where a zero byte ends one name: no name that reaches us by environment or JSON can hold one.
func joined(a, b Owner) bool {
	return strings.Contains(a.Network+a.ContainerID+a.IfName, "\x00") || strings.Contains(b.Network+b.ContainerID+b.IfName, "\x00")
}

// TestIDLength: the whole comment that carries id and label stays below the 256 bytes that iptables keeps.
func TestIDLength(t *testing.T) {
	owner := Owner{strings.Repeat("n", 300), strings.Repeat("c", 300), strings.Repeat("i", 300)}
	if comment := "ipmasq v1 " + string(owner.ID()) + " " + owner.Label(); len(comment) > 255 {
		t.Errorf("%d bytes: %s", len(comment), comment)
	}
}

// TestNoCollisions draws 100,000 owners of one network, as a node sees in years, and as many networks. The first eight digits
// of networks are 32 bits, in which some collide by chance; the names net0, net1, ... must not make it more.
func TestNoCollisions(t *testing.T) {
	const n = 100_000
	owners, networks := map[ID]bool{}, map[ID]bool{}
	for i := range n {
		owners[Owner{"pods", fmt.Sprintf("container%d", i), "eth0"}.ID()] = true
		networks[Owner{Network: fmt.Sprintf("net%d", i)}.ID()[:networkDigits]] = true
	}
	if len(owners) != n {
		t.Errorf("%d collisions of owners", n-len(owners))
	}
	expected := float64(n) * (n - 1) / 2 / math.Pow(2, 32) // the birthday's
	if got := float64(n - len(networks)); got > expected+5*math.Sqrt(expected) {
		t.Errorf("%g collisions of networks, %g to be expected", got, expected)
	}
	few := map[ID]bool{}
	for i := range 10_000 {
		few[Owner{Network: fmt.Sprintf("net%d", i)}.ID()[:networkDigits]] = true
	}
	if len(few) < 10_000-1 {
		t.Errorf("%d collisions among net0 to net9999, 0.01 to be expected", 10_000-len(few))
	}
}

func TestIDOf(t *testing.T) {
	id := Owner{"pods", "c", "eth0"}.ID()
	for network, want := range map[string]bool{"pods": true, "pods2": false, "": false, "Pods": false} {
		if id.Of(network) != want {
			t.Errorf("%s of %q is %t", id, network, !want)
		}
	}
	for _, bad := range []ID{"", "xyz", id[:31], id + "0", ID(strings.Repeat("g", 32))} {
		if bad.Valid() || bad.Of("pods") {
			t.Errorf("%q is taken for an id of pods", bad)
		}
	}
}
