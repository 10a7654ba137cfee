package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// fileTree is the contents of a directory: text, "-> target" for a symlink, "/" for a directory, "|" for a pipe.
type fileTree map[string]string

func (tree fileTree) make(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range tree {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		target, isLink := strings.CutPrefix(content, "-> ")
		switch {
		case isLink:
			err = errors.Join(err, os.Symlink(target, path))
		case content == "/":
			err = errors.Join(err, os.MkdirAll(path, 0o755))
		case content == "|":
			err = errors.Join(err, syscall.Mkfifo(path, 0o600))
		default:
			err = errors.Join(err, os.WriteFile(path, []byte(content), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var directoryCases = []struct {
	name    string
	tree    fileTree
	opts    Options
	want    *Config  // nil: refused
	sources []string // names in the directory
	says    []string // in the text of each finding, DIR being the directory
}{
	{name: "empty", tree: fileTree{}, want: with(rfc1918)},
	{name: "only other files", tree: fileTree{"config": "masqLinkLocal: true"}, want: with(rfc1918)},
	{
		name: "one file", tree: fileTree{"ip-masq-agent": "nonMasqueradeCIDRs: [10.0.0.0/8]\nmasqLinkLocal: true"},
		want: with("10.0.0.0/8", linkLocal), sources: []string{"ip-masq-agent"},
	},
	{
		name: "file without the prefix is not even read",
		tree: fileTree{"ip-masq-config": "nonMasqueradeCIDRs: [10.0.0.0/8]", "other": "nonMasqueradeCIDRs: [10.0.0.1/8]", "sub/ip-masq": "*"},
		want: with("10.0.0.0/8"), sources: []string{"ip-masq-config"},
	},
	{
		name: "two JSON files", opts: ipv6,
		tree: fileTree{
			"ip-masq-0": `{"nonMasqueradeCIDRs":["172.16.0.0/12","10.0.0.0/8","fc00::/7"],"masqLinkLocal":false,"masqLinkLocalIPv6":false}`,
			"ip-masq-1": `{"nonMasqueradeCIDRs":["1.0.0.0/8","2.2.0.0/16"],"masqLinkLocal":true,"masqLinkLocalIPv6":false}`,
		},
		want: with("172.16.0.0/12 10.0.0.0/8 fc00::/7 1.0.0.0/8 2.2.0.0/16", linkLocal), sources: []string{"ip-masq-0", "ip-masq-1"},
	},
	{
		name: "three files with overlaps and partial keys",
		tree: fileTree{
			"ip-masq-c": "nonMasqueradeCIDRs: [180.132.128.0/18, 10.0.0.0/8]\n",
			"ip-masq-a": "nonMasqueradeCIDRs: [155.128.0.0/9, 10.0.0.0/8]\nmasqLinkLocal: false\n",
			"ip-masq-b": "nonMasqueradeCIDRs: [10.240.0.0/16, 10.240.0.0/16]\nmasqLinkLocalIPv6: true\n",
		},
		want: with("155.128.0.0/9 10.0.0.0/8 10.240.0.0/16 180.132.128.0/18", linkLocalIPv6), sources: []string{"ip-masq-a", "ip-masq-b", "ip-masq-c"},
	},
	{
		name: "a file without the list adds nothing",
		tree: fileTree{"ip-masq-a": "nonMasqueradeCIDRs: [1.0.0.0/8]", "ip-masq-b": "", "ip-masq-c": "masqLinkLocal: true"},
		want: with("1.0.0.0/8", linkLocal), sources: []string{"ip-masq-a", "ip-masq-b", "ip-masq-c"},
	},
	{
		name: "defaults where no file gives the list", opts: allRanges,
		tree: fileTree{"ip-masq-a": "masqueradeCIDRs: [10.1.0.0/16]", "ip-masq-b": "masqueradeCIDRs: [10.2.0.0/16, 10.1.0.0/16]"},
		want: with(rfc1918+reserved, except("10.1.0.0/16 10.2.0.0/16")), sources: []string{"ip-masq-a", "ip-masq-b"},
	},
	{
		name: "empty lists only", tree: fileTree{"ip-masq-a": "nonMasqueradeCIDRs: []", "ip-masq-b": "{}"},
		want: with(""), sources: []string{"ip-masq-a", "ip-masq-b"},
	},
	{
		name: "smallest interval",
		tree: fileTree{"ip-masq-a": "resyncInterval: 90s", "ip-masq-b": "resyncInterval: 70s", "ip-masq-c": "resyncInterval: 80s", "ip-masq-d": ""},
		want: with(rfc1918, every(70*time.Second)), sources: []string{"ip-masq-a", "ip-masq-b", "ip-masq-c", "ip-masq-d"},
	},
	{
		name: "mounted ConfigMap",
		tree: fileTree{
			"..2026_01_01/ip-masq-config": "masqLinkLocal: true",
			"..data":                      "-> ..2026_01_01",
			"ip-masq-config":              "-> ..data/ip-masq-config",
		},
		want: with(rfc1918, linkLocal), sources: []string{"ip-masq-config"},
	},
	{
		name: "the limit counts the union without duplicates",
		tree: fileTree{"ip-masq-a": "nonMasqueradeCIDRs: [1.0.0.0/8, 2.0.0.0/8]\ncidrLimit: 9", "ip-masq-b": "nonMasqueradeCIDRs: [2.0.0.0/8, 3.0.0.0/8]\ncidrLimit: 3"},
		want: with("1.0.0.0/8 2.0.0.0/8 3.0.0.0/8"), sources: []string{"ip-masq-a", "ip-masq-b"},
	},
	{
		name: "the smallest limit counts",
		tree: fileTree{"ip-masq-a": "nonMasqueradeCIDRs: [1.0.0.0/8, 2.0.0.0/8]\ncidrLimit: 9", "ip-masq-b": "nonMasqueradeCIDRs: [3.0.0.0/8]\ncidrLimit: 2"},
		says: []string{"DIR/ip-masq-b:2:12: error: nonMasqueradeCIDRs has 3 items, more than cidrLimit 2 allows"},
	},
	{
		name: "each error names its file",
		tree: fileTree{"ip-masq-a": "nonMasqueradeCIDRs: [x]", "ip-masq-b": "{*", "ip-masq-c": "\nfoo: 1"},
		says: []string{"DIR/ip-masq-a:1:22: error: nonMasqueradeCIDRs[0]", "DIR/ip-masq-b:1:2: error: invalid JSON", `DIR/ip-masq-c:2:1: error: unknown key "foo"`},
	},
	{
		name: "in the lists of two files",
		tree: fileTree{"ip-masq-a": "masqueradeCIDRs: [1.0.0.0/8]", "ip-masq-b": "\nnonMasqueradeCIDRs: [1.0.0.0/8]"},
		says: []string{`DIR/ip-masq-a:1:19: error: CIDR "1.0.0.0/8" is in masqueradeCIDRs and in nonMasqueradeCIDRs (DIR/ip-masq-b:2): remove one`},
	},
	{
		name: "link-local switch in another file",
		tree: fileTree{"ip-masq-a": "masqueradeCIDRs: [169.254.0.0/16]", "ip-masq-b": "masqLinkLocal: true"},
		want: with(rfc1918, linkLocal, except("169.254.0.0/16")), sources: []string{"ip-masq-a", "ip-masq-b"},
	},
	{
		name: "the same key in two files is not given twice", tree: fileTree{"ip-masq-a": "masqLinkLocal: true", "ip-masq-b": "masqLinkLocal: false"},
		want: with(rfc1918, linkLocal), sources: []string{"ip-masq-a", "ip-masq-b"},
	},
	{
		name: "egress and interfaces are joined",
		tree: fileTree{
			"ip-masq-a": "outputInterfaces: [eth0]\negress: [{destinations: [203.0.113.0/24], sourceAddresses: [192.0.2.0/28]}]",
			"ip-masq-b": "outputInterfaces: ['!wg0', eth0]\negress: [{destinations: [198.51.100.0/24], sourceAddresses: [192.0.2.0/28]}]",
			"ip-masq-c": "egress: [{destinations: [203.0.113.0/24], sourceAddresses: [192.0.2.0/28]}]",
		},
		want: with(rfc1918, interfaces("eth0", "!wg0"), toward("203.0.113.0/24", "192.0.2.0/28", ""), toward("198.51.100.0/24", "192.0.2.0/28", "")), sources: []string{"ip-masq-a", "ip-masq-b", "ip-masq-c"},
	},
	{
		name: "the same destination in two files",
		tree: fileTree{
			"ip-masq-a": "egress: [{destinations: [203.0.113.0/24], sourceAddresses: [192.0.2.0/28]}]",
			"ip-masq-b": "egress: [{destinations: [203.0.113.0/24], sourceAddresses: [192.0.2.0/24]}]",
		},
		says: []string{`DIR/ip-masq-b:1:26: error: CIDR "203.0.113.0/24" is in egress[0].destinations and in egress[0].destinations (DIR/ip-masq-a:1): remove one of the two`},
	},
	{
		name: "settings that agree",
		tree: fileTree{"ip-masq-a": "sources: pods\ntoPorts: 1-2", "ip-masq-b": "toPorts: 1-2\nnodeTraffic: false", "ip-masq-c": "nodeTraffic: true\nsources: pods"},
		want: with(rfc1918, settingsOf(func(s *policy.Settings) {
			s.Sources, s.ToPorts, s.NodeTraffic = policy.SourcesPods, policy.PortRanges{{First: 1, Last: 2}}, true
		})), sources: []string{"ip-masq-a", "ip-masq-b", "ip-masq-c"},
	},
	{
		name: "settings that do not",
		tree: fileTree{"ip-masq-a": "sources: pods\ntoPorts: 1-2\nrandomFully: true\npodAnnotations: deny", "ip-masq-b": "toPorts: auto\nsources: all\npodAnnotations: allow\nrandomFully: false"},
		says: []string{
			"DIR/ip-masq-b:2:1: error: sources is all here and pods in DIR/ip-masq-a:1: remove one of the two\n",
			"DIR/ip-masq-b:4:1: error: randomFully is false here and true in DIR/ip-masq-a:3: remove one of the two\n",
			"DIR/ip-masq-b:1:1: error: toPorts is auto here and 1-2 in DIR/ip-masq-a:2: remove one of the two\n",
			"DIR/ip-masq-b:3:1: error: podAnnotations is allow here and deny in DIR/ip-masq-a:4: remove one of the two\n",
		},
	},
	{
		name: "sub-directory", tree: fileTree{"ip-masq-dir": "/", "ip-masq-file": "masqLinkLocal: true"},
		says: []string{"DIR/ip-masq-dir: error: is a directory where a file is expected"},
	},
	{name: "symlink to a directory", tree: fileTree{"ip-masq-dir": "-> ."}, says: []string{"DIR/ip-masq-dir: error: is a directory"}},
	{name: "dangling symlink", tree: fileTree{"ip-masq": "-> nowhere"}, says: []string{"DIR/ip-masq: error: cannot be read: no such file or directory"}},
	{name: "pipe", tree: fileTree{"ip-masq": "|"}, says: []string{"DIR/ip-masq: error: is not a regular file"}},
	{
		name: "lenient", opts: lenient, tree: fileTree{"ip-masq-a": "foo: 1", "ip-masq-b": "MasqLinkLocal: true"},
		want: with(rfc1918), sources: []string{"ip-masq-a", "ip-masq-b"},
		says: []string{`DIR/ip-masq-a:1:1: warning: unknown key "foo" is ignored`, `DIR/ip-masq-b:1:1: warning: unknown key "MasqLinkLocal" is ignored`},
	},
}

func TestLoadDirectory(t *testing.T) {
	for _, c := range directoryCases {
		t.Run(c.name, func(t *testing.T) {
			dir := c.tree.make(t)
			opts := c.opts
			opts.Path, opts.AllowDir = dir, true
			got, findings, err := Load(opts)
			if c.want == nil {
				checkRefused(t, got, err)
			} else if err != nil {
				t.Fatalf("refused: %v", err)
			} else if diff := cmp.Diff(*c.want, got, sameConfig); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(inDir(dir, c.sources), got.Files); diff != "" {
				t.Errorf("sources -want +got:\n%s", diff)
			}
			checkSays(t, findings, replaceAll(c.says, "DIR", dir))
		})
	}
}

func inDir(dir string, names []string) []string {
	var paths []string
	for _, name := range names {
		paths = append(paths, filepath.Join(dir, name))
	}
	return paths
}

func replaceAll(texts []string, old, replacement string) []string {
	var replaced []string
	for _, text := range texts {
		replaced = append(replaced, strings.ReplaceAll(text, old, replacement))
	}
	return replaced
}

// What sha256sum prints for nothing, for "masqLinkLocal: true", and for that behind "cidrLimit: 5".
const (
	hashOfNothing   = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	hashOfLinkLocal = "a0f49775506f722caf71d2aef01798602eff438b32f4b02755acabcb64675dbd"
	hashOfTwo       = "08c153b8ac451766ce85c2fe217c267c243e0c9a3e1650a7bb5cacdeaebbae76"
)

// TestHash: that of a directory is of its files joined in their order, and a bad config has none.
func TestHash(t *testing.T) {
	for name, c := range map[string]struct {
		tree fileTree
		want string
	}{
		"two files": {fileTree{"ip-masq-b": "masqLinkLocal: true", "ip-masq-a": "cidrLimit: 5\n", "other": "x"}, hashOfTwo},
		"no file":   {fileTree{}, hashOfNothing},
		"bad":       {fileTree{"ip-masq-a": "cidrLimit: x"}, ""},
	} {
		if got, _, _ := Load(Options{Path: c.tree.make(t), AllowDir: true}); got.Hash != c.want {
			t.Errorf("%s: %s, want %s", name, got.Hash, c.want)
		}
	}
}

func TestLoadFile(t *testing.T) {
	dir := fileTree{"config": "masqLinkLocal: true", "link": "-> config", "empty": ""}.make(t)
	for name, want := range map[string]*Config{
		"config": with(rfc1918, linkLocal),
		"link":   with(rfc1918, linkLocal),
		"empty":  with(rfc1918),
	} {
		path := filepath.Join(dir, name)
		want.Files, want.Hash = []string{path}, hashOfNothing
		if name != "empty" {
			want.Hash = hashOfLinkLocal
		}
		checkLoads(t, path, *want)
	}
	absent := *with(rfc1918)
	absent.Hash = hashOfNothing
	checkLoads(t, filepath.Join(dir, "missing"), absent)
	checkLoads(t, filepath.Join(dir, "no", "directory"), absent)
}

func checkLoads(t *testing.T, path string, want Config) {
	t.Helper()
	got, findings, err := Load(Options{Path: path})
	if err != nil || len(findings) > 0 {
		t.Errorf("%s: findings %v, error %v", path, findings, err)
	}
	if want.Hash == "" { // not what the test is about
		want.Hash = got.Hash
	}
	if diff := cmp.Diff(want, got, sameConfig[:2], cmpopts.IgnoreFields(Config{}, "Flags", "origins")); diff != "" {
		t.Errorf("%s: -want +got:\n%s", path, diff)
	}
}

func TestLoadRefusesDirectoryForFile(t *testing.T) {
	dir := fileTree{"ip-masq": "masqLinkLocal: true"}.make(t)
	got, findings, err := Load(Options{Path: dir})
	checkRefused(t, got, err)
	checkSays(t, findings, []string{dir + ": error: is a directory where a file is expected: name the file, or give the directory with --config"})
}

func TestLoadNamesTheSystemsError(t *testing.T) {
	dir := fileTree{"loop": "-> loop", "file": ""}.make(t)
	for _, c := range []struct {
		path string
		want syscall.Errno
	}{
		{filepath.Join(dir, "loop"), syscall.ELOOP},
		{filepath.Join(dir, "file", "below"), syscall.ENOTDIR},
	} {
		got, findings, err := Load(Options{Path: c.path})
		checkRefused(t, got, err)
		checkSays(t, findings, []string{c.path + ": error: cannot be read: " + c.want.Error()})
		if pathError := new(fs.PathError); !errors.Is(err, c.want) || !errors.As(err, &pathError) {
			t.Errorf("%v does not wrap %v", err, c.want)
		}
	}
}

func TestLoadRefusesHugeFile(t *testing.T) {
	fits := "{}" + strings.Repeat(" ", maxFileSize-len("{}"))
	dir := fileTree{"fits": fits, "huge": fits + " "}.make(t)
	checkLoads(t, filepath.Join(dir, "fits"), *with(rfc1918, func(c *Config) { c.Files = inDir(dir, []string{"fits"}) }))
	got, findings, err := Load(Options{Path: filepath.Join(dir, "huge")})
	checkRefused(t, got, err)
	checkSays(t, findings, []string{"huge: error: cannot be read: it is larger than 8 MiB"})
}

// A log line and a probe's answer are no place for 100,000 sentences; the findings are.
func TestErrorTextIsBounded(t *testing.T) {
	text := "nonMasqueradeCIDRs: [" + strings.Repeat("x,", 100) + "]"
	_, findings, err := Parse("f", []byte("foo: 1\n"+text), Options{Lenient: true})
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(findings) != 101 || len(invalid.Findings) != 100 {
		t.Fatalf("%d findings, error %T", len(findings), err)
	}
	if findings[0].Severity != Warning || findings[100] != invalid.Findings[99] {
		t.Errorf("the findings begin with %v and end with %v", findings[0], findings[100])
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxErrorLines+1 || lines[maxErrorLines] != "and 90 more errors" {
		t.Errorf("the error says\n%v", err)
	}
	if want := `f:2:22: nonMasqueradeCIDRs[0]: CIDR "x" could not be parsed`; !strings.HasPrefix(lines[0], want) {
		t.Errorf("the first line is %s", lines[0])
	}
}

func TestFindingString(t *testing.T) {
	for want, f := range map[string]Finding{
		"f:3:5: error: bad":  {"f", 3, 5, Error, "", "bad"},
		"f:3: warning: odd":  {"f", 3, 0, Warning, "", "odd"},
		"f: error: bad":      {"f", 0, 0, Error, "", "bad"},
		"3:5: error: bad":    {"", 3, 5, Error, "", "bad"},
		"warning: something": {Severity: Warning, Message: "something"},
	} {
		if got := fmt.Sprint(f); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
