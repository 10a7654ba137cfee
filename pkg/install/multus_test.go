package install

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// thinMultus is what multus thin 4.2 makes of a list when it starts (cmd/thin_entrypoint, multusConfTemplate and
// multusConflistTemplate): the list is in it, its keys sorted.
func thinMultus(t testing.TB, form, list string) string {
	t.Helper()
	var sorted map[string]any
	if err := json.Unmarshal([]byte(list), &sorted); err != nil {
		t.Fatal(err)
	}
	inside, err := json.Marshal(sorted)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(form, inside)
}

const (
	thinConf = `{
        "cniVersion": "1.0.0",
        "name": "multus-cni-network",
        "type": "multus",
        "capabilities": {"portMappings":true},
        "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig",
        "delegates": [
                %s
        ]
}
`
	thinConflist = `{
    "cniVersion": "1.0.0",
    "name": "multus-cni-network",
    "plugins": [ {
        "type": "multus",
        "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig",
        "delegates": [
            %s
        ]
    }]
}
`
	flannelList = `{
  "name": "cbr0",
  "cniVersion": "1.0.0",
  "plugins": [
    { "type": "flannel", "delegate": { "hairpinMode": true, "isDefaultGateway": true } },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
`
)

// inMultus are the types of the plugins that multus calls for every pod.
func inMultus(t testing.TB, raw string) (types []string) {
	t.Helper()
	type list struct {
		Type    string `json:"type"`
		Plugins []struct {
			Type string `json:"type"`
		} `json:"plugins"`
	}
	var conf struct {
		Delegates []list `json:"delegates"`
		Plugins   []struct {
			Delegates []list `json:"delegates"`
		} `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(raw), &conf); err != nil {
		t.Fatalf("%v:\n%s", err, raw)
	}
	if len(conf.Plugins) > 0 {
		conf.Delegates = conf.Plugins[0].Delegates
	}
	if len(conf.Delegates[0].Plugins) == 0 {
		return []string{conf.Delegates[0].Type}
	}
	for _, plugin := range conf.Delegates[0].Plugins {
		types = append(types, plugin.Type)
	}
	return types
}

// TestMultusThin: multus thin calls the copy in its own file, so that is edited as well as the list, and both come back byte for
// byte.
func TestMultusThin(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ file, form, listFile, list, want string }{
		"a file of one plugin":  {"00-multus.conf", thinConf, "10-flannel.conflist", flannelList, "flannel portmap ip-masq"},
		"a list":                {"00-multus.conflist", thinConflist, "10-flannel.conflist", flannelList, "flannel portmap ip-masq"},
		"the copy has no list":  {"00-multus.conf", thinConf, "10-single.conf", bridgeConf, "bridge ip-masq"},
		"and is in a list":      {"00-multus.conflist", thinConflist, "10-single.conf", bridgeConf, "bridge ip-masq"},
		"there is no list more": {"00-multus.conf", thinConf, "", flannelList, "flannel portmap ip-masq"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			multus := thinMultus(t, test.form, test.list)
			h.write(test.file, multus)
			if test.listFile != "" {
				h.write(test.listFile, test.list)
			}
			if r := h.want(0, "", "install"); !strings.Contains(r.stdout, test.file+": edited; it has a copy of the list") {
				t.Errorf("it does not say so: %s", r.stdout)
			}
			if got := strings.Join(inMultus(t, h.read(h.path(test.file))), " "); got != test.want {
				t.Errorf("multus calls %s, want %s", got, test.want)
			}
			before := h.snapshot()
			h.want(0, "", "install")
			h.unchangedSince(before)
			h.want(0, "", "uninstall")
			if got := h.read(h.path(test.file)); got != multus {
				t.Errorf("multus's file is not given back:\n%s", got)
			}
			if test.listFile != "" && h.read(h.path(test.listFile)) != test.list {
				t.Error("the list is not given back")
			}
			h.clean()
		})
	}
}

// TestMultusThinEntry: the copy gets the entry that the list has, and one that is given.
func TestMultusThinEntry(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-flannel.conflist", flannelList)
	h.want(0, "", "install", "--entry", `{"type":"ip-masq","enableIPv6":true}`)
	h.write("00-multus.conf", thinMultus(t, thinConf, flannelList))
	for _, entry := range []string{`{"type":"ip-masq","enableIPv6":true}`, `{"type":"ip-masq","masqChain":"X"}`} {
		h.want(0, "", "install", "--entry", entry)
		if got := h.read(h.path("00-multus.conf")); !strings.Contains(got, entry) {
			t.Errorf("no %s in\n%s", entry, got)
		}
	}
}

// TestMultusWatched: multus makes its file again when it starts, and the list's owner the list; both are put right within two seconds.
func TestMultusWatched(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	multus := thinMultus(t, thinConf, flannelList)
	h.write("10-flannel.conflist", flannelList)
	h.write("00-multus.conf", multus)
	h.watch(t)
	for _, rewrite := range []string{"", "00-multus.conf", "10-flannel.conflist"} {
		if text := map[string]string{"00-multus.conf": multus, "10-flannel.conflist": flannelList}[rewrite]; rewrite != "" {
			h.write(rewrite, text)
		}
		began := time.Now()
		netnstest.Eventually(t, 2*time.Second, "both files name ip-masq after a rewrite of "+rewrite, func() bool {
			return strings.Join(inMultus(t, h.read(h.path("00-multus.conf"))), " ") == "flannel portmap ip-masq" &&
				strings.Contains(h.read(h.path("10-flannel.conflist")), pluginType)
		})
		t.Logf("%q: %v", rewrite, time.Since(began))
	}
}

// TestMultusElsewhere: multus names a list in another directory, as it sees that. The list is edited there, watched there, and
// given back.
func TestMultusElsewhere(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	other := filepath.Join(filepath.Dir(h.conf), "multus", "net.d")
	h.mkdir(other)
	path := filepath.Join(other, "10-flannel.conflist")
	h.must(os.WriteFile(path, []byte(flannelList), 0o600))
	h.write("00-multus.conf", `{"cniVersion":"1.0.0","name":"multus-cni-network","type":"multus-shim","clusterNetwork":"/hostroot`+path+`"}`)
	h.want(0, "", "install")
	list, err := scan([]byte(h.read(path)))
	if err != nil || len(list.own()) != 1 || list.own()[0] != 2 {
		t.Errorf("%v:\n%s", err, h.read(path))
	}
	h.want(0, "", "uninstall")
	if h.read(path) != flannelList || exists(h.target()) {
		t.Error("not given back")
	}
	h.watch(t)
	for range 2 {
		netnstest.Eventually(t, 2*time.Second, "the list names ip-masq", func() bool { return strings.Contains(h.read(path), pluginType) })
		h.must(os.WriteFile(path, []byte(flannelList), 0o600))
		time.Sleep(50 * time.Millisecond)
	}
	h.clean()
}

// TestNamedByPath: a file that another configuration names by its path keeps its name, whichever directory the installer is given.
func TestNamedByPath(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]string{
		"the delegate of multus":  `{"name":"m","type":"multus-shim","clusterNetwork":"/host%s"}`,
		"what multus waits for":   `{"name":"m","type":"multus","clusterNetwork":"ovn-kubernetes","readinessindicatorfile":"%s"}`,
		"in multus inside a list": `{"name":"m","plugins":[{"type":"multus-shim","clusterNetwork":"/hostroot%s"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.write("10-ovn-kubernetes.conf", bridgeConf)
			runtimes := filepath.Join(filepath.Dir(h.conf), "runtime.d")
			h.mkdir(runtimes)
			h.must(os.WriteFile(filepath.Join(runtimes, "00-multus.conf"), fmt.Appendf(nil, by, h.path("10-ovn-kubernetes.conf")), 0o600))
			_, err := Options{ConfDir: h.conf, otherConfDirs: []string{runtimes}}.planInstall()
			for _, word := range []string{"00-multus.conf names it by its path", "10-ovn-kubernetes.conflist", "--sources=all"} {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("%v does not say %q", err, word)
				}
			}
			h.must(os.Remove(filepath.Join(runtimes, "00-multus.conf")))
			if _, err := (Options{ConfDir: h.conf, otherConfDirs: []string{runtimes}}).planInstall(); err != nil {
				t.Error(err)
			}
		})
	}
}
