package install

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
)

// B1, B3, B11, B12, B14-B16, B24: both are there, the list keeps its bytes, mode and name, and a second run touches nothing.
func TestInstall(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-pods.conflist", bridgeList)
	h.must(os.Chmod(h.path("10-pods.conflist"), 0o640))
	h.want(0, "", "install")
	h.must(h.installed())
	if mode := h.info(h.target()).Mode(); mode != 0o755 {
		t.Errorf("the plugin's mode is %s", mode)
	}
	if mode := h.info(h.path("10-pods.conflist")).Mode(); mode != 0o640 {
		t.Errorf("the list's mode is %s", mode)
	}
	if got := h.read(h.path("10-pods.conflist")); !strings.Contains(got, "9007199254740993 },\n    { \"type\": \"ip-masq\"") {
		t.Errorf("not a pure insertion:\n%s", got)
	}
	before := h.snapshot()
	if r := h.want(0, "", "install"); !strings.HasPrefix(r.stdout, "nothing to do") {
		t.Errorf("the second run says %q", r.stdout)
	}
	h.unchangedSince(before)
	h.want(0, "", "uninstall")
	if got := h.read(h.path("10-pods.conflist")); got != bridgeList {
		t.Errorf("not given back:\n%s", got)
	}
	if exists(h.target()) {
		t.Error("the plugin is still there")
	}
	h.clean()
}

func (h *host) unchangedSince(before map[string]string) {
	h.t.Helper()
	after := h.snapshot()
	for path := range before {
		if before[path] != after[path] {
			h.t.Errorf("%s was touched", path)
		}
	}
	for path := range after {
		if _, there := before[path]; !there {
			h.t.Errorf("%s was made", path)
		}
	}
}

// B1: the mode does not depend on the umask, and neither does a list that is new.
func TestUmask(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-single.conf", bridgeConf)
	script := `umask 0077; exec "$@"`
	args := append([]string{"sh", "-c", script, "sh", installerBin(), "install"}, h.flags()...)
	if r := execute(t, args...); r.code != 0 {
		t.Fatal(r.stderr)
	}
	if mode := h.info(h.target()).Mode(); mode != 0o755 {
		t.Errorf("the plugin's mode is %s", mode)
	}
	if mode := h.info(h.path("10-single.conflist")).Mode(); mode != 0o600 {
		t.Errorf("the list's mode is %s", mode)
	}
}

// B14: owner and attributes stay.
func TestOwnerAndAttributes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	h := newHost(t)
	h.write("10-pods.conflist", bridgeList)
	h.must(os.Chown(h.path("10-pods.conflist"), 1234, 5678))
	labelled := unix.Setxattr(h.path("10-pods.conflist"), "user.note", []byte("kept"), 0) == nil
	h.want(0, "", "install")
	var stat unix.Stat_t
	h.must(unix.Stat(h.path("10-pods.conflist"), &stat))
	if stat.Uid != 1234 || stat.Gid != 5678 {
		t.Errorf("the owner is %d:%d", stat.Uid, stat.Gid)
	}
	value := make([]byte, 16)
	if n, err := unix.Getxattr(h.path("10-pods.conflist"), "user.note", value); labelled && (err != nil || string(value[:n]) != "kept") {
		t.Errorf("the attribute is gone: %v", err)
	}
}

// B6, B9: the file that is edited is the one that the runtime loads, or the one that is named; the others stay as they are.
func TestWhichFile(t *testing.T) {
	t.Parallel()
	list := func(name string) string { return strings.Replace(bridgeList, "pods", name, 1) }
	for name, test := range map[string]struct {
		files  map[string]string
		flags  []string
		edited string
	}{
		"byte order":            {map[string]string{"10-a.conflist": list("a"), "9-b.conflist": list("b")}, nil, "10-a.conflist"},
		"upper case first":      {map[string]string{"a.conflist": list("a"), "Z.conflist": list("z")}, nil, "Z.conflist"},
		"dot file first":        {map[string]string{"00-a.conflist": list("a"), ".z.conflist": list("z")}, nil, ".z.conflist"},
		"other names":           {map[string]string{"00.txt": "x", "01.conflist.bak": "{", "05.conf~": "", "10-a.conflist": list("a")}, nil, "10-a.conflist"},
		"broken later":          {map[string]string{"10-a.conflist": list("a"), "20-b.conflist": "{"}, nil, "10-a.conflist"},
		"named":                 {map[string]string{"10-a.conflist": list("a"), "20-b.conflist": list("b")}, []string{"--conf-file", "20-b.conflist"}, "20-b.conflist"},
		"named, first is bad":   {map[string]string{"10-a.conflist": "", "20-b.conflist": list("b")}, []string{"--conf-file=20-b.conflist"}, "20-b.conflist"},
		"multus by file":        {map[string]string{"00-multus.conf": multusFile, "10-a.conflist": list("a"), "20-b.conflist": list("b")}, nil, "20-b.conflist"},
		"multus by name":        {map[string]string{"00-multus.conf": multusName, "10-a.conflist": list("a"), "20-b.conflist": list("b")}, nil, "20-b.conflist"},
		"multus with delegate":  {map[string]string{"00-multus.conflist": multusInline, "10-a.conflist": list("a"), "20-b.conflist": list("b")}, nil, "20-b.conflist 00-multus.conflist"},
		"multus, named":         {map[string]string{"00-multus.conflist": multusInline, "10-a.conflist": list("a"), "20-b.conflist": list("b")}, []string{"--conf-file=20-b.conflist"}, "20-b.conflist 00-multus.conflist"},
		"multus, named another": {map[string]string{"00-multus.conflist": multusInline, "10-a.conflist": list("a"), "20-b.conflist": list("b")}, []string{"--conf-file=10-a.conflist"}, "10-a.conflist"},
		"multus alone":          {map[string]string{"00-multus.conflist": multusInline, "10-a.conflist": list("a")}, nil, "00-multus.conflist"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.mkdir(h.path("00-directory.conflist"))
			for name, text := range test.files {
				h.write(name, text)
			}
			h.want(0, "", "install", test.flags...)
			for name, text := range test.files {
				if edited := h.read(h.path(name)) != text; edited != slices.Contains(strings.Fields(test.edited), name) {
					t.Errorf("%s was edited: %v", name, edited)
				}
			}
			h.want(0, "", "install", test.flags...)
		})
	}
}

const (
	multusFile   = `{"cniVersion":"0.3.1","name":"multus-cni-network","type":"multus-shim","clusterNetwork":"/host/etc/cni/net.d/20-b.conflist"}`
	multusName   = `{"cniVersion":"0.3.1","name":"multus-cni-network","type":"multus","clusterNetwork":"b"}`
	multusInline = `{"cniVersion":"0.3.1","name":"m","plugins":[{"type":"multus","delegates":[{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"bridge"}]}]}]}`
)

// B17: X.conf goes on as X.conflist and comes back byte for byte, also where X.conf is written anew meanwhile.
func TestConf(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"10-single.conf", "10-single.json"} {
		h := newHost(t)
		h.write(name, bridgeConf)
		h.want(0, "", "install")
		h.must(h.installed())
		if list, _ := h.loads(); list.Name != "single" || exists(h.path(name)) || len(h.names()) != 1 {
			t.Errorf("%s: network %s in %v", name, list.Name, h.names())
		}
		before := h.snapshot()
		h.want(0, "", "install")
		h.want(0, "", "install", "--conf-file", name)
		h.unchangedSince(before)
		h.want(0, "", "uninstall")
		if got := h.read(h.path(name)); got != bridgeConf || len(h.names()) != 1 {
			t.Errorf("%s: not given back in %v:\n%s", name, h.names(), got)
		}
	}
}

func TestConfWrittenAgain(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-single.conf", bridgeConf)
	h.want(0, "", "install", `--entry={"type":"ip-masq","backend":"iptables"}`)
	newer := strings.Replace(bridgeConf, "mtu", "newer", 1)
	h.write("10-single.conf", newer)
	h.want(0, "", "install")
	if got := h.read(h.path("10-single.conflist")); !strings.Contains(got, "newer") || !strings.Contains(got, `"backend":"iptables"`) || exists(h.path("10-single.conf")) {
		t.Errorf("in %v:\n%s", h.names(), got)
	}
	h.write("10-single.conf", bridgeConf)
	h.want(0, "", "uninstall")
	if got := h.read(h.path("10-single.conf")); got != bridgeConf || len(h.names()) != 1 {
		t.Errorf("its owner's file is not there: %v\n%s", h.names(), got)
	}
}

// B17: what other software chained behind ip-masq keeps the list a list.
func TestConfThenOthersChained(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-single.conf", bridgeConf)
	h.want(0, "", "install")
	text := h.read(h.path("10-single.conflist"))
	h.write("10-single.conflist", strings.Replace(text, "\n  ]\n", ",\n    { \"type\": \"istio-cni\" }\n  ]\n", 1))
	h.want(0, "", "uninstall")
	list, err := h.loads()
	h.must(err)
	if len(list.Plugins) != 2 || count(list) != 0 {
		t.Errorf("%d plugins, ip-masq %d times", len(list.Plugins), count(list))
	}
}

// B18: the link stays, the file behind it is edited, and the directory sees a rename.
func TestSymlink(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	real := filepath.Join(filepath.Dir(h.conf), "real")
	h.mkdir(real)
	h.must(os.WriteFile(filepath.Join(real, "pods.conflist"), []byte(bridgeList), 0o644))
	h.must(os.Symlink("../real/pods.conflist", filepath.Join(real, "hop")))
	h.must(os.Symlink("../real/hop", h.path("10-pods.conflist")))
	for _, command := range []string{"install", "uninstall"} {
		seen := events(t, h.conf)
		h.want(0, "", command)
		if target, err := os.Readlink(h.path("10-pods.conflist")); err != nil || target != "../real/hop" {
			t.Errorf("%s: the link leads to %q, %v", command, target, err)
		}
		// What fsnotify calls RENAME; containerd ignores its CREATE.
		if got := seen(); !strings.Contains(got, "MOVED_FROM") {
			t.Errorf("%s: the directory saw %q", command, got)
		}
	}
	if got := h.read(filepath.Join(real, "pods.conflist")); got != bridgeList {
		t.Errorf("not given back:\n%s", got)
	}
	h.clean()
}

// B2: an identical plugin is not touched and causes no event; B1: another one is replaced, and so is one that cannot be run.
func TestBinary(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-pods.conflist", bridgeList)
	h.want(0, "", "install")
	seen := events(t, h.bin)
	h.want(0, "", "install")
	if got := seen(); got != "" {
		t.Errorf("an identical plugin caused %s", got)
	}
	h.source = pluginB()
	h.want(0, "", "install")
	if h.read(h.target()) != h.read(filepath.Join(pluginB(), "ip-masq")) {
		t.Error("the plugin was not upgraded")
	}
	h.must(os.Chmod(h.target(), 0o644))
	h.want(0, "", "install")
	h.must(h.installed())
	h.must(os.Remove(h.target()))
	h.must(os.Symlink(filepath.Join(pluginB(), "ip-masq"), h.target()))
	h.want(0, "", "install")
	if !h.info(h.target()).Mode().IsRegular() {
		t.Error("a symlink was left in the plugin's place")
	}
}

// B4: what a killed run left goes, and nothing else.
func TestStaleTemps(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-pods.conflist", bridgeList)
	h.write(".mine.tmp-1", "x")
	for _, dir := range []string{h.bin, h.conf} {
		h.must(os.WriteFile(filepath.Join(dir, atomicfile.TempPrefix+"123"), []byte("half"), 0o600))
	}
	h.want(0, "", "install")
	h.clean()
	if !exists(h.path(".mine.tmp-1")) {
		t.Error("another program's file is gone")
	}
}

// B12: 64-bit integers, escapes, comments, and CRLF survive install and uninstall of every fixture on disk.
func TestFixturesOnDisk(t *testing.T) {
	t.Parallel()
	for name, raw := range fixtures(t, "*.conf*") {
		if strings.HasSuffix(name, ".golden") || strings.Contains(string(raw), `"ip-masq"`) {
			continue
		}
		h := newHost(t)
		h.write(name, string(raw))
		h.want(0, "", "install", "--allow-ipmasq", "--force")
		h.must(h.installed())
		h.want(0, "", "uninstall")
		if got := h.read(h.path(name)); got != string(raw) || len(h.names()) != 1 {
			t.Errorf("%s: not given back in %v:\n%s", name, h.names(), got)
		}
	}
}
