package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// status is what `status --output json` promises.
type status struct {
	Backend *struct {
		Kind, Reason string
		Features     map[string]bool
	}
	Policy struct {
		Settings           struct{ Chain, Sources string }
		NonMasqueradeCIDRs []string
	}
	Origin, ConfigError string
	Drift               []struct{ Object, Problem, Detail string }
	Attachments         []struct {
		Network, ContainerID, IfName string
		Addresses                    []string
	}
	Conflicts []struct{ Owner, Where, Rule, Fix string }
	Counters  map[string][]struct {
		Rule    string
		Packets int
	}
}

// status has to exit with 0.
func (r *rig) status(t *testing.T, args ...string) status {
	t.Helper()
	got := r.Agent(t, "status", append([]string{"--output", "json"}, args...)...)
	if got.Code != 0 || got.Stderr != "" {
		t.Fatalf("status: exit %d\n%s", got.Code, got.Stderr)
	}
	var raw map[string]any
	if err := json.Unmarshal([]byte(got.Stdout), &raw); err != nil {
		t.Fatalf("%v\n%s", err, got.Stdout)
	}
	for _, key := range []string{"backend", "policy", "origin", "drift", "attachments", "conflicts", "counters"} {
		if _, there := raw[key]; !there {
			t.Errorf("status has no key %q:\n%s", key, got.Stdout)
		}
	}
	if _, isList := raw["drift"].([]any); !isList {
		t.Errorf("drift is no list:\n%s", got.Stdout)
	}
	var s status
	if err := json.Unmarshal([]byte(got.Stdout), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

var update = flag.Bool("update", false, "rewrite golden files")

func TestStatusOfAFreshNode(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		s := r.status(t)
		if s.Backend != nil || len(s.Drift) != 1 || s.Origin != "config file" || len(s.Attachments) != 0 {
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
		if s.Backend == nil || s.Backend.Kind != string(r.Kind) || s.Backend.Reason == "" || s.Origin != "config file" || len(s.Drift) != 0 {
			t.Errorf("got %+v", s)
		}
		if len(s.Attachments) != 1 || s.Attachments[0].ContainerID != "a" || s.Attachments[0].Addresses[0] != p.Addrs[0].String() {
			t.Errorf("attachments %+v", s.Attachments)
		}
		for _, d := range damagesOf(r.Variant) {
			r.sh(t, d.script)
			damaged := r.standing(t)
			if s := r.status(t); len(s.Drift) == 0 {
				t.Errorf("%s: no drift", d.name)
			}
			if r.standing(t) != damaged {
				t.Errorf("%s: status changed the rules", d.name)
			}
			r.Sync(t)
			if s := r.status(t); len(s.Drift) != 0 {
				t.Errorf("%s: healed, and still %q", d.name, s.Drift)
			}
		}
		r.Write(t, internetKept)
		if s := r.status(t); len(s.Drift) == 0 || s.Policy.NonMasqueradeCIDRs[1] != "192.0.2.0/24" {
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
		packets := 0
		for _, c := range r.status(t).Counters["IPv4"] {
			packets += c.Packets
		}
		if packets != 3 {
			t.Errorf("%d connections counted, want 3: %+v", packets, r.status(t).Counters)
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
		text := strings.ReplaceAll(got.Stdout, filepath.Dir(r.Config), "/etc/config")
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
