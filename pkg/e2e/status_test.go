package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// status has to exit with 0, and its document has to be exactly what package status describes: no key more, none less.
func (r *rig) status(t *testing.T, args ...string) status.Status {
	t.Helper()
	got := r.Agent(t, "status", append([]string{"--output", "json"}, args...)...)
	if got.Code != 0 || got.Stderr != "" {
		t.Fatalf("status: exit %d\n%s", got.Code, got.Stderr)
	}
	var s status.Status
	exactly(t, got.Stdout, &s)
	if s.APIVersion != status.APIVersion {
		t.Errorf("apiVersion %q", s.APIVersion)
	}
	return s
}

// exactly decodes a document into its type, which has to know every key of it, and to have no other.
func exactly(t *testing.T, text string, into any) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var got, want any
	again, err := json.Marshal(into)
	if err := errors.Join(err, json.Unmarshal([]byte(text), &got), json.Unmarshal(again, &want)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the document is not what its type says (-type +document):\n%s", diff)
	}
}

var update = flag.Bool("update", false, "rewrite golden files")

func TestStatusOfAFreshNode(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		s := r.status(t)
		if s.Backend.Kind != nil || s.Drift != nil || s.Policy.Origin != status.OriginFile || len(s.Pods.Attached) != 0 || s.Daemon.Running {
			t.Errorf("got %+v", s)
		}
		if rules := r.rules(t); rules != "" {
			t.Errorf("looking made rules:\n%s", rules)
		}
	})
}

// TestStatusNamesDrift: none while kernel and policy are equal, and at least one line after every damage, until it is healed.
// Looking heals nothing.
func TestStatusNamesDrift(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		r.Write(t, never)
		r.Sync(t)
		s := r.status(t)
		if s.Backend.Kind == nil || *s.Backend.Kind != r.Kind || s.Backend.Reason == nil || s.Policy.Origin != status.OriginFile || s.Drift == nil || len(s.Drift) != 0 {
			t.Errorf("got %+v", s)
		}
		if len(s.Pods.Attached) != 1 || s.Pods.Attached[0].ContainerID != "a" || s.Pods.Attached[0].Addresses[0] != p.Addrs[0] {
			t.Errorf("attachments %+v", s.Pods)
		}
		for _, d := range damagesOf(r.Variant) {
			r.sh(t, d.script)
			damaged := r.standing(t)
			s := r.status(t)
			if len(s.Drift) == 0 {
				t.Errorf("%s: no drift", d.name)
			}
			for _, drift := range s.Drift {
				if !slices.Contains(backend.Objects(), drift.Object) || !slices.Contains([]backend.Problem{"missing", "unexpected", "different"}, drift.Problem) || drift.Detail == "" {
					t.Errorf("%s: %+v", d.name, drift)
				}
			}
			if r.standing(t) != damaged {
				t.Errorf("%s: status changed the rules", d.name)
			}
			r.Sync(t)
			if s := r.status(t); len(s.Drift) != 0 {
				t.Errorf("%s: healed, and still %v", d.name, s.Drift)
			}
		}
		r.Write(t, internetKept)
		if s := r.status(t); len(s.Drift) == 0 || s.Policy.NonMasquerade[1].String() != "192.0.2.0/24" {
			t.Errorf("of a policy that is not in the kernel yet: %+v", s)
		}
	})
}

func TestStatusCounts(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		r.Sync(t)
		for range 3 {
			r.wantSeen(t, p, nodeAddress)
		}
		packets := uint64(0)
		for _, c := range r.status(t).Counters {
			packets += c.Packets
		}
		if packets != 3 {
			t.Errorf("%d connections counted, want 3: %+v", packets, r.status(t).Counters)
		}
	})
}

// TestStatusCountsPrefixes: each prefix has its own, also an exception and every other destination; nftables has null for a long policy, and
// says why. explain has the same.
func TestStatusCountsPrefixes(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		excepted := r.Corp.AddAddr(t, "10.50.0.9")
		const lists = never + "masqueradeCIDRs: [10.50.0.0/16]\nnonMasqueradeCIDRs:\n- 10.0.0.0/8\n- 10.99.0.0/24\n"
		r.Write(t, lists)
		r.Sync(t)
		send := func(to netip.Addr, times int) {
			t.Helper()
			for range times {
				if _, err := p.Seen("udp", to); err != nil {
					t.Fatal(err)
				}
			}
		}
		send(r.Internet.IPv4, 3)
		send(excepted, 2)
		send(r.Corp.IPv4, 4)
		counts := func() string {
			var all []string
			for _, prefix := range r.status(t).Policy.Prefixes {
				text := fmt.Sprintf("%s %s null", prefix.Prefix, prefix.Verdict)
				if prefix.Packets != nil {
					text = fmt.Sprintf("%s %s %d", prefix.Prefix, prefix.Verdict, *prefix.Packets)
					if *prefix.Bytes < 28**prefix.Packets {
						text += " of no bytes"
					}
				}
				all = append(all, text)
			}
			return strings.Join(all, "\n")
		}
		want := "169.254.0.0/16 keep 0\n10.99.0.0/24 keep 4\n10.50.0.0/16 masquerade 2\n10.0.0.0/8 keep 0\n0.0.0.0/0 masquerade 3"
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(counts(), "\n"), cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		for to, packets := range map[netip.Addr]string{r.Corp.IPv4: "4", excepted: "2"} {
			if got := r.Agent(t, "explain", "--src", p.Addrs[0].String(), "--dst", to.String(), "--output", "json").Stdout; !regexp.MustCompile(`"prefixCounter": \{\s*"packets": ` + packets + `,`).MatchString(got) {
				t.Errorf("explain of %s, want %s packets:\n%s", to, packets, got)
			}
		}
		if r.IsIPTables() {
			return
		}
		var long strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&long, "- 20.%d.%d.1/32\n", i/250, i%250)
		}
		r.Write(t, lists+long.String())
		r.Sync(t)
		if got := counts(); !strings.Contains(got, "10.99.0.0/24 keep null\n") || strings.Count(got, "null") != 1004 {
			t.Errorf("of a long policy:\n%.400s", got)
		}
		if text := r.Agent(t, "status").Stdout; !strings.Contains(text, "nftables counts by prefix up to 1,000 ranges in a family") {
			t.Errorf("of a long policy:\n%s", text)
		}
	})
}

// TestStatusText compares what people read with testdata/status-VARIANT.golden; -update rewrites that.
func TestStatusText(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.attached(t, "a")
		r.Write(t, internetKept)
		r.Sync(t)
		r.Write(t, bad)
		r.sh(t, damagesOf(r.Variant)[1].script)
		got := r.Agent(t, "status")
		text := strings.ReplaceAll(got.Stdout, "\n"+strings.Repeat(" ", 14), " ") // where lines break depends on the length of paths
		text = regexp.MustCompile(`, in force since .*\(\d+s ago\)`).ReplaceAllString(text, "")
		text = strings.NewReplacer(filepath.Dir(r.Config), "/etc/config", testkit.Built(), "/opt/cni/bin", r.ConfDir, "/etc/cni/net.d", r.CacheDir, "/var/lib/cni").Replace(text)
		text = regexp.MustCompile(`fd00:244::\w+`).ReplaceAllString(text, "fd00:244::2")
		text = regexp.MustCompile(`\b[0-9a-f]{32}\b`).ReplaceAllString(text, "OWNER")
		golden := filepath.Join("testdata", fmt.Sprintf("status-%s.golden", r.Name))
		if *update {
			overwrite(t, golden, text)
		}
		if diff := cmp.Diff(read(t, golden), text); diff != "" || got.Code != 0 {
			t.Errorf("exit %d, -want +got:\n%s", got.Code, diff)
		}
	})
}
