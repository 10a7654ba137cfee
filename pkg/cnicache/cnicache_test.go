package cnicache

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

const (
	pathHere = "/proc/self/ns/net" // a namespace that is there
	pathGone = "/proc/self/ns/no-such"
)

// cacheOf is a cache with these files and conflists, by name.
func cacheOf(t *testing.T, files, conflists map[string]string) Cache {
	t.Helper()
	dir := t.TempDir()
	c := Cache{Dir: filepath.Join(dir, "cache"), ConfDir: filepath.Join(dir, "net.d")}
	for in, all := range map[string]map[string]string{c.resultsDir(): files, c.ConfDir: conflists} {
		if err := os.MkdirAll(in, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range all {
			write(t, filepath.Join(in, name), text)
		}
	}
	return c
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// v1 is a file of the present format.
func v1(network, container, netns, conflist string) string {
	return fmt.Sprintf(`{"kind": "cniCacheV1", "containerId": %q, "config": %q, "ifName": "eth0", "networkName": %q, "netns": %q, "result": %s}`,
		container, base64.StdEncoding.EncodeToString([]byte(conflist)), network, netns, result(netns))
}

func result(netns string) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": %q}],
  "ips": [{"address": "10.1.0.5/24", "interface": 1}, {"address": "fd00::5/64", "interface": 1}]}`, netns)
}

func list(name string, types ...string) string {
	var plugins []string
	for _, typ := range types {
		plugins = append(plugins, fmt.Sprintf(`{"type": %q}`, typ))
	}
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [%s]}`, name, strings.Join(plugins, ", "))
}

func TestAttachments(t *testing.T) {
	own, theirs := list("n", "bridge", "ip-masq"), list("n", "bridge")
	for name, c := range map[string]struct {
		file, text string
		conflists  map[string]string
		want       bool
	}{
		"masqueraded": {"n-a-eth0", v1("n", "a", pathHere, theirs), map[string]string{"1.conflist": own}, true},
		"masqueraded when attached, no conflist now": {"n-a-eth0", v1("n", "a", pathHere, own), nil, true},
		"masqueraded when attached, not own now":     {"n-a-eth0", v1("n", "a", pathHere, own), map[string]string{"1.conflist": theirs}, false},
		"never masqueraded":                          {"n-a-eth0", v1("n", "a", pathHere, theirs), nil, false},
		"the first conflist of a name counts":        {"n-a-eth0", v1("n", "a", pathHere, ""), map[string]string{"1.conflist": theirs, "2.conflist": own}, false},
		"no conflist by its name":                    {"n-a-eth0", v1("n", "a", pathHere, ""), map[string]string{"1.conflist.bak": own}, false},
		"a broken conflist beside":                   {"n-a-eth0", v1("n", "a", pathHere, ""), map[string]string{"0.conflist": "{", "1.conflist": own}, true},
		"opted out":                                  {"n-a-eth0", v1("n", "a", pathHere, ""), map[string]string{"1.conflist": strings.Replace(own, `"ip-masq"`, `"ip-masq", "masquerade": false`, 1)}, false},
		"not opted out":                              {"n-a-eth0", v1("n", "a", pathHere, ""), map[string]string{"1.conflist": strings.Replace(own, `"ip-masq"`, `"ip-masq", "masquerade": true`, 1)}, true},
		"a single plugin":                            {"n-a-eth0", v1("n", "a", pathHere, ""), map[string]string{"1.conf": `{"name": "n", "type": "bridge"}`}, false},
		"the format before":                          {"n-a-eth0", result(pathHere), map[string]string{"1.conflist": own}, true},
		"the format before, no conflist":             {"n-a-eth0", result(pathHere), nil, false},
		"the format before, names with dashes":       {"my-n-a-b-eth0", result(pathHere), map[string]string{"1.conflist": list("my-n", "ip-masq"), "2.conflist": list("my", "bridge")}, true},
		"the format before, the longer network":      {"my-n-a-b-eth0", result(pathHere), map[string]string{"1.conflist": list("my-n", "bridge"), "2.conflist": list("my", "ip-masq")}, false},
		"no address":                                 {"n-a-eth0", strings.Replace(v1("n", "a", pathHere, own), `"ips"`, `"x"`, 1), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			cache := cacheOf(t, map[string]string{c.file: c.text}, c.conflists)
			all, err := cache.List()
			masqueraded := slices.ContainsFunc(all.Entries, func(e Entry) bool { return e.Masqueraded(policy.AllowAnnotations) })
			if err != nil || masqueraded != c.want {
				t.Fatalf("%+v, %v, want masqueraded: %v", all, err, c.want)
			}
			got, known, err := cache.Attachments()
			if listed := c.want || strings.HasPrefix(name, "opted out"); err != nil || (len(got) == 1) != listed {
				t.Fatalf("%v, %v, want listed: %v", got, err, listed)
			}
			if !c.want {
				return
			}
			want := []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5")}
			if diff := cmp.Diff(want, got[0].Addresses, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
			if got[0].NetNS.Path != pathHere || got[0].NetNS.Inode == 0 || !known[got[0].ID()] {
				t.Errorf("%+v, known %v", got[0], known)
			}
		})
	}
}

// TestKnown: what may be alive, and what is provably not.
func TestKnown(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		want       bool
	}{
		"whole":                          {"n-a-eth0", v1("n", "a", pathHere, ""), true},
		"of another network":             {"m-a-eth0", v1("m", "a", pathHere, ""), true},
		"its namespace is gone":          {"n-a-eth0", v1("n", "a", pathGone, ""), false},
		"nothing is known of it":         {"n-a-eth0", v1("n", "a", "", ""), true},
		"half written":                   {"n-a-eth0", v1("n", "a", pathHere, "")[:40], true},
		"empty":                          {"n-a-eth0", "", true},
		"garbage":                        {"n-a-eth0", "\xff\x00", true},
		"null":                           {"n-a-eth0", "null", true},
		"no result":                      {"n-a-eth0", `{"kind": "cniCacheV1"}`, true},
		"old, and its network is gone":   {"m-a-eth0", result(pathHere), true},
		"half written, names of no sort": {"my-net-1-con-tain-er-eth0", "{", true},
	} {
		t.Run(name, func(t *testing.T) {
			_, known, err := cacheOf(t, map[string]string{c.file: c.text}, nil).Attachments()
			owner := attachment.Owner{Network: c.file[:1], ContainerID: "a", IfName: "eth0"}
			if strings.HasPrefix(c.file, "my") {
				owner = attachment.Owner{Network: "my-net-1", ContainerID: "con-tain-er", IfName: "eth0"}
			}
			if err != nil || known[owner.ID()] != c.want {
				t.Errorf("known: %v, %v, want %v", known[owner.ID()], err, c.want)
			}
		})
	}
	if _, known, err := (Cache{Dir: t.TempDir()}).Attachments(); err == nil || known != nil {
		t.Errorf("no cache: %v, %v", known, err)
	}
}

// TestPods: the runtime's arguments name the pod, and an opt-out is told from a network without the plugin.
func TestPods(t *testing.T) {
	own := list("n", "bridge", "ip-masq")
	named := strings.Replace(v1("n", "a", pathHere, own), `"result"`, `"cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-0"]], "result"`, 1)
	off := strings.Replace(own, `"ip-masq"`, `"ip-masq", "masquerade": false`, 1)
	annotated := func(value string) string {
		return strings.Replace(named, `"result"`, `"capabilityArgs": {"io.kubernetes.cri.pod-annotations": {"ip-masq-agent/masquerade": "`+value+`"}}, "result"`, 1)
	}
	for name, c := range map[string]struct {
		text, conflist string
		pod            string
		optedOut       bool
		allowed        policy.PodAnnotations
	}{
		"named":                          {named, own, "default/web-0", false, ""},
		"without arguments":              {v1("n", "a", pathHere, own), own, "", false, ""},
		"its network opted out":          {named, off, "default/web-0", true, ""},
		"the pod opted out":              {annotated("false"), own, "default/web-0", true, ""},
		"the pod may not opt out":        {annotated("false"), own, "default/web-0", false, policy.DenyAnnotations},
		"the pod overrides its network":  {annotated("true"), off, "default/web-0", false, ""},
		"the pod may not do that either": {annotated("true"), off, "default/web-0", true, policy.DenyAnnotations},
		"the annotation is no boolean":   {annotated("maybe"), off, "default/web-0", true, ""},
		"its network has no ip-masq":     {named, list("n", "bridge"), "default/web-0", false, ""},
	} {
		got, err := cacheOf(t, map[string]string{"n-a-eth0": c.text}, map[string]string{"1.conflist": c.conflist}).List()
		if err != nil || len(got.Entries) != 1 || got.Entries[0].Pod.String() != c.pod || got.Entries[0].OptedOut(c.allowed) != c.optedOut {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestStrayFilesAreSkipped(t *testing.T) {
	c := cacheOf(t, map[string]string{"n-a-eth0": v1("n", "a", pathHere, list("n", "ip-masq")), "stray": "x"}, nil)
	if err := os.Mkdir(filepath.Join(c.resultsDir(), "directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := c.List()
	if err != nil || len(got.Entries) != 1 || !slices.Equal(got.Unread, []string{"stray"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestStamp: it changes with everything that List may see, writes in place included, and with nothing else.
func TestStamp(t *testing.T) {
	c := cacheOf(t, map[string]string{"n-a-eth0": "{"}, map[string]string{"1.conflist": list("n", "bridge")})
	last := c.Stamp()
	if again := c.Stamp(); again != last {
		t.Fatalf("changes by itself: %q, %q", last, again)
	}
	for _, change := range []struct {
		name string
		do   func() error
	}{
		{"a file is completed", func() error { return os.WriteFile(filepath.Join(c.resultsDir(), "n-a-eth0"), []byte("{}"), 0o600) }},
		{"one more", func() error { return os.WriteFile(filepath.Join(c.resultsDir(), "n-b-eth0"), nil, 0o600) }},
		{"one less", func() error { return os.Remove(filepath.Join(c.resultsDir(), "n-a-eth0")) }},
		{"the conflist is edited", func() error {
			return os.WriteFile(filepath.Join(c.ConfDir, "1.conflist"), []byte(list("n", "ip-masq")), 0o600)
		}},
		{"no results", func() error { return os.RemoveAll(c.Dir) }},
	} {
		if err := change.do(); err != nil {
			t.Fatal(err)
		}
		if now := c.Stamp(); now == last {
			t.Errorf("%s: unchanged", change.name)
		} else {
			last = now
		}
	}
}
