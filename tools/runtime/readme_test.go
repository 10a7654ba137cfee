package runtime

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// way is how a command of the chapter is run here.
type way struct {
	command string // a pattern of the command's beginning
	how     string
	run     func(r *reader, t *testing.T, command string)
}

// ways: the first that matches is taken. What nothing says otherwise of is run on the node by a shell.
func ways() []way {
	return []way{
		{`make (image|demo|test|check|bench|kernels|userlands)\b`, "make -n: others run it", (*reader).plan},
		{`make `, "in a copy of the checkout, and on this machine, since the node has no compiler", (*reader).here},
		{`kubectl create `, "--dry-run=client", (*reader).dryRun},
		{`kubectl label nodes? `, "--local, on a node that is a file; a server's part is in the tests of the manifests", (*reader).label},
		{`kubectl (apply|delete) -k `, "rendered; a server's part is in the tests of the manifests", (*reader).kustomize},
		{`kubectl (apply|delete) -f `, "decoded; a server's part is in the tests of the manifests", (*reader).manifest},
		{`kubectl .*(rollout|get|logs|wait|describe) `, "needs a cluster, and changes nothing: left out", (*reader).leaveOut},
		{`kubectl .*exec ds/ip-masq-agent `, "its command, on the node; in a container of the manifest it is in TestConfigMapKey", (*reader).inContainer},
		{`kubectl `, "no way is known", (*reader).unknown},
		{`helm (install|upgrade) `, "helm template", (*reader).template},
		{`helm (uninstall|repo|status) `, "needs a cluster: left out", (*reader).leaveOut},
		{`(docker|crane|systemctl) `, "needs a daemon that is not ours: left out", (*reader).leaveOut},
		{`.*&$`, "on the node, in the background, awaited", (*reader).background},
		{`([\w./]*/)?(ip-masq-agent|ip-masq-installer watch)( --.*)?$`, "on the node, in the background, awaited", (*reader).background},
		{`.*\buninstall\b`, "on the node, once a pod has shown that all before it has worked", (*reader).uninstall},
		{``, "on the node", (*reader).onNode},
	}
}

// TestReadmeInstall does what the README's chapter says, on a node that has a network and has never heard of us.
func TestReadmeInstall(t *testing.T) {
	netnstest.Require(t, "iptables", "nft", "bridge", "host-local", "cnitool", "nsenter", "make", "pkill")
	t.Parallel()
	r := newReader(t)
	commands := 0
	for _, b := range blocks(chapter(string(readFile(t, "README.md")), "## Install")) {
		if b.isData() {
			r.shown(t, b)
			continue
		}
		for _, command := range b.commands() {
			commands++
			r.follow(t, command)
		}
	}
	if commands == 0 {
		t.Fatal("the chapter ## Install has no commands")
	}
	r.finish(t)
}

func (r *reader) follow(t *testing.T, command string) {
	t.Helper()
	for _, w := range ways() {
		if regexp.MustCompile(`^` + w.command).MatchString(command) {
			t.Logf("$ %s    (%s)", command, w.how)
			w.run(r, t, command)
			return
		}
	}
}

// onNode runs a command in the copy of the checkout, as the node sees it.
func (r *reader) onNode(t *testing.T, command string) {
	t.Helper()
	if out := r.run(t, "sh", "-ec", "cd /src; "+command); out != "" {
		t.Log(out)
	}
}

// background starts a daemon. It takes the place of one that has run already.
func (r *reader) background(t *testing.T, command string) {
	t.Helper()
	command = strings.TrimSpace(strings.TrimSuffix(command, "&"))
	program := filepath.Base(strings.Fields(command)[0])
	if former := r.daemons[program]; former != nil {
		former.stop(syscall.SIGTERM)
	}
	r.daemons[program] = r.start(t, "sh", "-ec", "cd /src; exec "+command)
	if program == "ip-masq-agent" {
		r.awaitReady(t, r.daemons[program])
	}
}

// shown is data in the chapter. Our entry has to be what is in the network now, or goes there.
func (r *reader) shown(t *testing.T, b block) {
	t.Helper()
	var entry, list map[string]any
	if json.Unmarshal([]byte(strings.Join(b.lines, "\n")), &entry) != nil || entry["type"] != "ip-masq" {
		return
	}
	file := filepath.Join(r.disk, confFile)
	if err := json.Unmarshal(readFile(t, file), &list); err != nil {
		t.Fatal(err)
	}
	plugins := list["plugins"].([]any)
	if last := plugins[len(plugins)-1].(map[string]any); last["type"] != "ip-masq" {
		list["plugins"] = append(plugins, entry)
		writeFile(t, file, document(t, list), 0o644)
	} else if !reflect.DeepEqual(last, entry) {
		t.Errorf("the network has the entry %v, the README %v", last, entry)
	}
}

// uninstall removes the plugin from a node on which all works.
func (r *reader) uninstall(t *testing.T, command string) {
	t.Helper()
	r.prove(t)
	r.gone = true
	r.onNode(t, command)
}

// finish: all has worked, and after an uninstall nothing is left.
func (r *reader) finish(t *testing.T) {
	t.Helper()
	r.prove(t)
	if !r.gone {
		return
	}
	if now := readFile(t, filepath.Join(r.disk, confFile)); !bytes.Equal(now, r.before) {
		t.Errorf("the network is not what it was:\n%s\n%s", now, r.before)
	}
	if _, err := os.Stat(filepath.Join(r.disk, "opt/cni/bin/ip-masq")); err == nil {
		t.Error("the plugin is still there")
	}
	if rules := r.run(t, "nft", "list", "ruleset"); strings.Contains(strings.ToLower(rules), "ip-masq") {
		t.Errorf("rules are left:\n%s", rules)
	}
}
