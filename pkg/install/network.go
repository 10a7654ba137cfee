package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/fingerprint"
)

// loadable are the extensions that runtimes load (libcni, ConfFiles; containerd and CRI-O ask for these three).
var loadable = []string{".conf", listExt, ".json"}

const listExt = ".conflist"

// isSingle says whether a runtime takes the file for the configuration of a single plugin, not for a list.
func isSingle(file string) bool {
	ext := filepath.Ext(file)
	return ext == ".conf" || ext == ".json"
}

// listName is the name under which a file goes on as a list.
func listName(file string) string { return strings.TrimSuffix(file, filepath.Ext(file)) + listExt }

// network is a file of the conf directory as it was read, understood as the runtime would.
type network struct {
	path string // as the runtime finds it
	real string // the file itself: another path where path is a symlink
	info os.FileInfo
	raw  []byte
	list *conflist // nil before it is understood
}

func (n *network) name() string { return filepath.Base(n.path) }
func (n *network) isLink() bool { return n.real != n.path }

// readNetwork reads a file through its links. It opens without waiting: a named pipe would otherwise block the installer, as it
// does the runtime.
func readNetwork(path string) (*network, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("read the network: %w", err)
	}
	n := &network{path: path, real: path}
	if info.Mode()&fs.ModeSymlink != 0 {
		if n.real, err = filepath.EvalSymlinks(path); err != nil {
			return nil, notNow("%s is a symlink that leads nowhere: %w", path, err)
		}
	}
	file, err := os.OpenFile(n.real, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read the network: %w", err)
	}
	defer func() { _ = file.Close() }()
	if n.info, err = file.Stat(); err != nil {
		return nil, fmt.Errorf("read the network: %w", err)
	}
	if !n.info.Mode().IsRegular() {
		return nil, notNow("%s is not a file", path)
	}
	if n.raw, err = io.ReadAll(file); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}

// understand finds the list's entries. A single plugin's configuration is a list of one, as it is for runtimes.
func (n *network) understand() (err error) {
	n.list, err = scan(n.raw)
	if err != nil || !isSingle(n.path) {
		return err
	}
	n.list.entries = nil
	if n.list.keys != nil {
		n.list.entries = []entry{{start: 0, end: len(n.raw), pluginConf: decodePlugin(n.list.keys)}}
	}
	return nil
}

// errChanged says that a file changed between reading and replacing it. The pass begins again.
var errChanged = errors.New("it changed meanwhile")

// unchanged says whether the file is still the one that was read.
func (n *network) unchanged() error {
	info, err := os.Stat(n.real)
	if err != nil || fingerprint.Info(info) != fingerprint.Info(n.info) {
		return fmt.Errorf("%s: %w", n.path, errChanged)
	}
	return nil
}

// candidates are the files among which the runtime chooses, in its order: bytewise, so that a dot file comes before "00-".
// Only directories are passed over; a symlink to one is not, and neither is a link to nowhere.
func candidates(dir string) ([]string, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notNow("there is no directory %s (--cni-conf-dir); the runtime, or the network's owner, makes it", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the networks: %w", err)
	}
	var names []string
	for _, file := range files {
		if !file.IsDir() && slices.Contains(loadable, filepath.Ext(file.Name())) {
			names = append(names, file.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// find chooses the list to edit: the one that the runtime loads, or the one that was named. multus is the file in which multus has a
// copy of that list, nil where there is none; where the list is nothing but that copy, it has the same path.
func (o Options) find() (list, multus *network, err error) {
	names, err := candidates(o.ConfDir)
	if err != nil {
		return nil, nil, err
	}
	if len(names) == 0 && o.ConfFile == "" {
		return nil, nil, notNow("there is no network in %s yet; ip-masq chains behind one and makes none", o.ConfDir)
	}
	if o.ConfFile != "" {
		if list, err = o.named(names); err != nil {
			return nil, nil, err
		}
		first, err := o.load(filepath.Join(o.ConfDir, names[0]))
		if err == nil && isMultus(first) && first.hasCopyOf(list) {
			return list, first, nil
		}
		return list, nil, nil
	}
	first, err := o.load(filepath.Join(o.ConfDir, names[0]))
	if err != nil || !isMultus(first) {
		return first, nil, err
	}
	list, err = o.delegate(first, names[1:])
	inside, copyErr := first.copied()
	switch {
	case copyErr != nil:
		return list, nil, err
	case err != nil:
		return inside, first, nil // there is no other file: what multus has inside is all that it calls
	case first.hasCopyOf(list):
		return list, first, nil
	}
	return list, nil, nil
}

// named is the file of --conf-file, or the list that an earlier run made of it.
func (o Options) named(names []string) (*network, error) {
	if slices.Contains(names, o.ConfFile) {
		return o.load(filepath.Join(o.ConfDir, o.ConfFile))
	}
	if list := listName(o.ConfFile); isSingle(o.ConfFile) && slices.Contains(names, list) {
		n, err := o.load(filepath.Join(o.ConfDir, list))
		if err == nil && stringOf(n.list.keys[convertedKey]) == o.ConfFile {
			return n, nil
		}
	}
	return nil, notNow("--conf-file: there is no file %s in %s", o.ConfFile, o.ConfDir)
}

// load reads a network and refuses one that the runtime would not load: it is its owner's to complete.
func (o Options) load(path string) (*network, error) {
	n, err := readNetwork(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notNow("%w", err)
	}
	if err != nil {
		return nil, err
	}
	if len(strings.TrimSpace(string(n.raw))) == 0 {
		return nil, notNow("%s is empty; waiting for its owner to write it", n.path)
	}
	if err = n.understand(); err == nil {
		err = n.list.check()
	}
	if err != nil {
		return nil, notNow("%s, which the runtime loads, is broken: %w; waiting for its owner to repair it", n.path, err)
	}
	return n, nil
}

// acceptable refuses a network that the plugin would not serve as its owner expects.
func (o Options) acceptable(n *network) error {
	if len(n.list.own()) == len(n.list.entries) {
		return fmt.Errorf("%s: %w", n.path, errAlone)
	}
	if kind := n.list.entries[0].bypasses(); kind != "" && !o.Force {
		return fmt.Errorf("%s: %s; install it all the same with --force", n.path, attachment.Bypassing(kind))
	}
	for _, e := range n.list.entries {
		if key := e.masquerades(); key != "" && !o.AllowIPMasq {
			return fmt.Errorf(`%s has "%s": true at its plugin %q, which then masquerades everything by itself; set it to false, or accept it with --allow-ipmasq`,
				n.path, key, e.Type)
		}
	}
	return nil
}

// masquerades names the key by which a plugin masquerades by itself. Flannel hands its delegate's keys to the bridge.
func (e entry) masquerades() string {
	if string(e.IPMasq) == "true" {
		return "ipMasq"
	}
	var delegate pluginConf
	if len(e.Delegate) > 0 && json.Unmarshal(e.Delegate, &delegate) == nil && string(delegate.IPMasq) == "true" {
		return "delegate.ipMasq"
	}
	return ""
}

// speaks refuses a list whose version the plugin does not speak: runtimes compare the very strings, and CRI-O drops the whole
// network otherwise.
func (n *network) speaks(versions []string) error {
	speaks := "ip-masq speaks " + strings.Join(versions, ", ")
	if own := stringOf(n.list.keys["cniVersion"]); own != "" {
		if slices.Contains(versions, own) {
			return nil
		}
		return fmt.Errorf(`%s has "cniVersion": %q, but %s`, n.path, own, speaks)
	}
	several, _ := n.list.keys["cniVersions"].([]any)
	for _, one := range several {
		if slices.Contains(versions, stringOf(one)) && !isSingle(n.path) {
			return nil
		}
	}
	return fmt.Errorf(`%s has no "cniVersion", which means 0.1.0, but %s`, n.path, speaks)
}
