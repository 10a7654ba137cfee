package install

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

func listOf(version, plugins string) string {
	return fmt.Sprintf(`{"name":"pods",%s"plugins":[%s]}`, version, plugins)
}

const v1 = `"cniVersion":"1.0.0",`

// The table of exits: what is refused (1) and what is not possible now (3), each with the words that help, and nothing
// touched in either case (B5, B7-B9, B19, B27).
func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		files map[string]string
		flags []string
		code  int
		words string
	}{
		"no file":                {nil, nil, 3, "net.d"},
		"only others":            {map[string]string{"README": "x", "10-a.conflist.tmp": "{}"}, nil, 3, "net.d"},
		"empty":                  {map[string]string{"10-a.conflist": "", "20-b.conflist": listOf(v1, `{"type":"bridge"}`)}, nil, 3, "10-a.conflist empty"},
		"white space":            {map[string]string{"10-a.conflist": " \n"}, nil, 3, "10-a.conflist empty"},
		"half written":           {map[string]string{"10-a.conflist": bridgeList[:40]}, nil, 3, "10-a.conflist broken"},
		"nameless":               {map[string]string{"10-a.conflist": `{"cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}`}, nil, 3, "10-a.conflist name"},
		"nameless conf":          {map[string]string{"10-a.conf": `{"cniVersion":"1.0.0","type":"bridge"}`}, nil, 3, "10-a.conf name"},
		"no plugins":             {map[string]string{"10-a.conflist": `{"cniVersion":"1.0.0","name":"a"}`}, nil, 3, "10-a.conflist plugins"},
		"empty plugins":          {map[string]string{"10-a.conflist": listOf(v1, ``)}, nil, 3, "10-a.conflist plugins"},
		"no type":                {map[string]string{"10-a.conflist": listOf(v1, `{"typ":"bridge"}`)}, nil, 3, "10-a.conflist type"},
		"list in a conf":         {map[string]string{"10-a.conf": bridgeList}, nil, 3, "10-a.conf type"},
		"conf in a list":         {map[string]string{"10-a.conflist": bridgeConf}, nil, 3, "10-a.conflist plugins"},
		"array":                  {map[string]string{"10-a.conflist": `[]`}, nil, 3, "10-a.conflist broken"},
		"conf-file absent":       {map[string]string{"10-a.conflist": bridgeList}, []string{"--conf-file=11-b.conflist"}, 3, "--conf-file 11-b.conflist"},
		"ipMasq":                 {map[string]string{"10-a.conflist": listOf(v1, `{"type":"bridge","ipMasq":true}`)}, nil, 1, "10-a.conflist ipMasq bridge --allow-ipmasq"},
		"ipMasq of a delegate":   {map[string]string{"10-a.conflist": listOf(v1, `{"type":"flannel","delegate":{"ipMasq":true}}`)}, nil, 1, "ipMasq flannel --allow-ipmasq"},
		"ipMasq, already there":  {map[string]string{"10-a.conflist": listOf(v1, `{"type":"bridge","ipMasq":true},{"type":"ip-masq"}`)}, nil, 1, "ipMasq"},
		"ipMasq in a conf":       {map[string]string{"10-a.conf": `{"name":"a","cniVersion":"1.0.0","type":"bridge","ipMasq":true}`}, nil, 1, "10-a.conf ipMasq"},
		"no version":             {map[string]string{"10-a.conflist": listOf("", `{"type":"bridge"}`)}, nil, 1, "10-a.conflist cniVersion 1.1.0"},
		"old version":            {map[string]string{"10-a.conflist": listOf(`"cniVersion":"0.2.0",`, `{"type":"bridge"}`)}, nil, 1, "10-a.conflist cniVersion 0.2.0 1.1.0"},
		"future version":         {map[string]string{"10-a.conflist": listOf(`"cniVersion":"9.0.0",`, `{"type":"bridge"}`)}, nil, 1, "cniVersion 9.0.0"},
		"future versions":        {map[string]string{"10-a.conflist": listOf(`"cniVersions":["9.0.0"],`, `{"type":"bridge"}`)}, nil, 1, "cniVersion"},
		"conf without version":   {map[string]string{"10-a.conf": `{"name":"a","type":"bridge"}`}, nil, 1, "10-a.conf cniVersion"},
		"alone":                  {map[string]string{"10-a.conflist": listOf(v1, `{"type":"ip-masq"}`)}, nil, 1, "10-a.conflist only"},
		"alone in a conf":        {map[string]string{"10-a.conf": `{"name":"a","cniVersion":"1.0.0","type":"ip-masq"}`}, nil, 1, "10-a.conf only"},
		"multus, delegate gone":  {map[string]string{"00-multus.conf": multusName, "10-a.conflist": bridgeList}, nil, 1, "multus --conf-file"},
		"multus, conf delegate":  {map[string]string{"00-multus.conf": strings.Replace(multusFile, "20-b.conflist", "20-b.conf", 1), "20-b.conf": bridgeConf}, nil, 1, "multus 20-b.conf 20-b.conflist path --sources=all"},
		"multus, path elsewhere": {map[string]string{"00-multus.conf": strings.Replace(multusFile, "/host/etc/cni/net.d/20-b.conflist", "/no/such/10-ovn.conf", 1), "10-a.conflist": bridgeList}, nil, 1, "multus /no/such/10-ovn.conf --sources=all"},
		"macvlan":                {map[string]string{"10-a.conflist": listOf(v1, `{"type":"macvlan","master":"eth0"}`)}, nil, 1, "10-a.conflist macvlan rules --force"},
		"ipvlan":                 {map[string]string{"10-a.conflist": listOf(v1, `{"type":"ipvlan","master":"eth0"}`)}, nil, 1, "ipvlan rules --force"},
		"ipvlan l2":              {map[string]string{"10-a.conf": `{"name":"a","cniVersion":"1.0.0","type":"ipvlan","mode":"l2"}`}, nil, 1, "ipvlan rules --force"},
		"host-device":            {map[string]string{"10-a.conflist": listOf(v1, `{"type":"host-device","device":"eth1"}`)}, nil, 1, "host-device rules --force"},
		"sriov":                  {map[string]string{"10-a.conflist": listOf(v1, `{"type":"sriov"}`)}, nil, 1, "sriov rules --force"},
		"sriov inside multus":    {map[string]string{"00-multus.conflist": strings.Replace(multusInline, "bridge", "sriov", 1)}, nil, 1, "00-multus.conflist sriov rules --force"},
		"conflist of another":    {map[string]string{"10-a.conf": bridgeConf, "10-a.conflist": bridgeList}, nil, 1, "10-a.conf 10-a.conflist"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			for name, text := range test.files {
				h.write(name, text)
			}
			before := h.snapshot()
			h.want(test.code, test.words, "install", append(test.flags, "--dry-run")...)
			h.want(test.code, test.words, "install", test.flags...)
			h.unchangedSince(before)
		})
	}
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ list, flag string }{
		"ipMasq allowed": {listOf(v1, `{"type":"bridge","ipMasq":true}`), "--allow-ipmasq"},
		"ipMasq false":   {listOf(v1, `{"type":"bridge","ipMasq":false}`), "--allow-ipmasq=false"},
		"ipvlan l3":      {listOf(v1, `{"type":"ipvlan","mode":"l3"}`), "--dry-run=false"},
		"forced":         {listOf(v1, `{"type":"macvlan"}`), "--force"},
		"cniVersions":    {listOf(`"cniVersions":["0.1.0","1.0.0"],`, `{"type":"bridge"}`), "--dry-run=false"},
		"both versions":  {listOf(`"cniVersion":"0.3.0","cniVersions":["1.0.0"],`, `{"type":"bridge"}`), "--dry-run=false"},
	} {
		h := newHost(t)
		h.write("10-a.conflist", test.list)
		if r := h.run("install", test.flag); r.code != 0 {
			t.Errorf("%s: %s", name, r.stderr)
		}
		h.must(h.installed())
	}
}

// Files that are none: nothing of it may be waited for, followed or replaced.
func TestRefusedFiles(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		make  func(path string) error
		words string
	}{
		"dangling":        {func(path string) error { return os.Symlink("nowhere", path) }, "10-a.conflist symlink"},
		"loop":            {func(path string) error { return os.Symlink("10-a.conflist", path) }, "10-a.conflist symlink"},
		"link to a place": {func(path string) error { return os.Symlink(".", path) }, "10-a.conflist"},
		"pipe":            {mkfifo, "10-a.conflist"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.must(test.make(h.path("10-a.conflist")))
			h.want(3, test.words, "install")
			if exists(h.target()) {
				t.Error("the plugin was installed")
			}
		})
	}
}

func TestMissingDirectories(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	h.must(os.Remove(h.bin))
	h.want(3, "--cni-bin-dir "+h.bin, "install")
	h.must(os.RemoveAll(h.conf))
	h.mkdir(h.bin)
	h.want(3, "--cni-conf-dir "+h.conf, "install")
	h.want(0, "", "uninstall")
	if exists(h.conf) || exists(h.state) || exists(h.data) {
		t.Error("a directory was made")
	}
}

// B1, B5: a plugin that does not work is not installed, the present one stays, and the list is not touched.
func TestBadPlugin(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ script, words string }{
		"missing":     {"", "--source-dir"},
		"fails":       {"#!/bin/sh\necho broken >&2\nexit 1\n", "VERSION broken"},
		"no JSON":     {"#!/bin/sh\necho hello\n", "VERSION hello"},
		"no versions": {"#!/bin/sh\necho '{\"cniVersion\":\"1.0.0\"}'\n", "supportedVersions"},
		"no format":   {"\x7fELF nonsense", "VERSION"},
		"never ends":  {"#!/bin/sh\nsleep 300 &\nsleep 300\n", "VERSION 10s"},
		"too much":    {"#!/bin/sh\nyes\n", "VERSION"},
		"other specs": {"#!/bin/sh\necho '{\"cniVersion\":\"0.2.0\",\"supportedVersions\":[\"0.2.0\"]}'\n", "cniVersion 0.2.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.write("10-a.conflist", bridgeList)
			bad := t.TempDir()
			if test.script != "" {
				h.must(os.WriteFile(filepath.Join(bad, "ip-masq"), []byte(test.script), 0o755))
			}
			if name != "never ends" { // once is long enough
				h.refusesPlugin(bad, test.words)
			}
			h.source = pluginA()
			h.want(0, "", "install")
			h.refusesPlugin(bad, test.words)
			h.must(h.installed())
		})
	}
}

func (h *host) refusesPlugin(source, words string) {
	h.t.Helper()
	before, start := h.snapshot(), time.Now()
	h.source = source
	h.want(1, words, "install")
	if took := time.Since(start); took > netnstest.Limit(15*time.Second) {
		h.t.Errorf("it took %s", took)
	}
	h.unchangedSince(before)
}

// A plugin whose mode bits were lost on its way into an image is installed all the same.
func TestSourceMode(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	h.source = t.TempDir()
	raw := h.read(filepath.Join(pluginA(), "ip-masq"))
	h.must(os.WriteFile(filepath.Join(h.source, "ip-masq"), []byte(raw), 0o400))
	h.want(0, "", "install", "--dry-run")
	h.want(0, "", "install")
	h.must(h.installed())
}

func TestPlaceTaken(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	h.mkdir(h.target())
	before := h.snapshot()
	h.want(1, h.target(), "install")
	h.unchangedSince(before)
}

// B5: without the right to write nothing is done, and the sentence says what is missing.
func TestUnwritable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	h.must(os.Chmod(h.path("10-a.conflist"), 0o644))
	for _, writable := range []string{"", h.bin} {
		if writable != "" {
			h.must(os.Chown(writable, 65534, 65534))
		}
		before := h.snapshot()
		r := execute(t, append([]string{"setpriv", "--reuid=65534", "--clear-groups", installerBin(), "install"}, h.flags()...)...)
		if r.code != 1 || !strings.Contains(r.stderr, "permission denied") || !strings.Contains(r.stderr, "root") {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
		delete(before, h.bin)
		after := h.snapshot()
		for path := range after {
			if _, there := before[path]; path != h.bin && !there {
				t.Errorf("%s was made", path)
			}
		}
	}
}
