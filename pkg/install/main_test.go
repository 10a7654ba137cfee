package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/fingerprint"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, testkit.Programs, buildOthers)) }

// The installer, and the same pinned to one thread; two directories with different builds of the plugin.
func installerBin() string { return testkit.Program("ip-masq-installer") }
func pinnedBin() string    { return testkit.Program("pinned") }
func pluginA() string      { return testkit.Built() }
func pluginB() string      { return testkit.Program("b") }

func buildOthers(dir string) error {
	const release = "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=v2"
	return errors.Join(
		testkit.GoBuild(".", filepath.Join(dir, "pinned"), "", "./testdata/pinned"),
		testkit.GoBuild(".", filepath.Join(dir, "b", "ip-masq"), release, "../../plugin/ip-masq"),
	)
}

// host is a node's directories.
type host struct {
	t                             testing.TB
	bin, conf, cache, state, data string
	source                        string
}

func newHost(t testing.TB) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{
		t: t, bin: filepath.Join(dir, "bin"), conf: filepath.Join(dir, "net.d"), cache: filepath.Join(dir, "cni"),
		state: filepath.Join(dir, "run"), data: filepath.Join(dir, "lib"), source: pluginA(),
	}
	h.mkdir(h.bin)
	h.mkdir(h.conf)
	return h
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) mkdir(dir string)        { h.t.Helper(); h.must(os.MkdirAll(dir, 0o755)) }
func (h *host) path(name string) string { return filepath.Join(h.conf, name) }
func (h *host) write(name, text string) {
	h.t.Helper()
	h.must(os.WriteFile(h.path(name), []byte(text), 0o600))
}
func (h *host) target() string            { return filepath.Join(h.bin, "ip-masq") }
func (h *host) info(p string) os.FileInfo { h.t.Helper(); i, err := os.Lstat(p); h.must(err); return i }

func (h *host) read(path string) string {
	h.t.Helper()
	raw, err := os.ReadFile(path)
	h.must(err)
	return string(raw)
}

func (h *host) names() []string {
	h.t.Helper()
	files, err := os.ReadDir(h.conf)
	h.must(err)
	var names []string
	for _, file := range files {
		names = append(names, file.Name())
	}
	return names
}

func (h *host) flags() []string {
	return []string{
		"--cni-bin-dir", h.bin, "--cni-conf-dir=" + h.conf, "--cni-cache-dir", h.cache, "--state-dir=" + h.state, "--data-dir", h.data,
		"--source-dir", h.source,
	}
}

// result is how a run ended.
type result struct {
	code           int
	stdout, stderr string
}

func (h *host) run(command string, extra ...string) result {
	h.t.Helper()
	return execute(h.t, slices.Concat([]string{installerBin(), command}, h.flags(), extra)...)
}

func execute(t testing.TB, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// want runs a command that must end with the status, and with a sentence where that is not 0. The sentence must have the
// given words.
func (h *host) want(code int, words string, command string, extra ...string) result {
	h.t.Helper()
	r := h.run(command, extra...)
	if r.code != code {
		h.t.Fatalf("%s %v: exit %d, want %d\n%s%s", command, extra, r.code, code, r.stdout, r.stderr)
	}
	if code != 0 && (strings.Count(r.stderr, "\n") != 1 || len(r.stderr) < 40) {
		h.t.Errorf("%s: want one sentence, not %q", command, r.stderr)
	}
	for word := range strings.FieldsSeq(words) {
		if !strings.Contains(r.stderr, word) {
			h.t.Errorf("%s: the sentence has no %q: %s", command, word, r.stderr)
		}
	}
	return r
}

// snapshot is everything below the host's directories: modes, links, and contents.
func (h *host) snapshot() map[string]string {
	h.t.Helper()
	all := map[string]string{}
	h.must(filepath.WalkDir(filepath.Dir(h.bin), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		if info.Mode().IsRegular() {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(raw) + " " + info.ModTime().String() + fingerprint.Info(info)
		}
		all[path] = text
		return nil
	}))
	return all
}

// loads is what a runtime makes of the directory: containerd with its default of one file (go-cni, opts.go).
func (h *host) loads() (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(h.conf, []string{".conf", ".conflist", ".json"})
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no network: %w", err)
	}
	slices.Sort(files)
	if strings.HasSuffix(files[0], ".conflist") {
		return libcni.ConfListFromFile(files[0])
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		return nil, err
	}
	return listOfOne(raw)
}

// listOfOne is what runtimes make of a single plugin's configuration.
func listOfOne(raw []byte) (*libcni.NetworkConfigList, error) {
	conf, err := libcni.NetworkPluginConfFromBytes(raw)
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromConf(conf) //nolint:staticcheck // deprecated, and what containerd and CRI-O call all the same
}

// installed says what is missing from a node that is as it should be.
func (h *host) installed() error {
	list, err := h.loads()
	if err != nil {
		return err
	}
	if last := list.Plugins[len(list.Plugins)-1].Network.Type; last != "ip-masq" || count(list) != 1 {
		return fmt.Errorf("%s has ip-masq %d times, and %s last", list.Name, count(list), last)
	}
	return h.answers()
}

// answers runs VERSION as a runtime does.
func (h *host) answers() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := (&libcni.CNIConfig{Path: []string{h.bin}}).GetVersionInfo(ctx, "ip-masq")
	return err
}

// clean fails when a temporary file was left.
func (h *host) clean() {
	h.t.Helper()
	for path := range h.snapshot() {
		if strings.Contains(path, atomicfile.TempPrefix) {
			h.t.Errorf("left behind: %s", path)
		}
	}
}

const bridgeList = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    { "type": "bridge", "mtu": 9007199254740993 }
  ]
}
`

const bridgeConf = `{ "cniVersion": "0.4.0", "name": "single", "type": "bridge", "mtu": 9007199254740993 }
`
