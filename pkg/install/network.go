package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// network is the file that the runtime loads, or the one that was named, understood as the runtime would.
type network struct {
	*confFile
	list *conflist
}

// find chooses the file to edit.
func (o Options) find() (*network, error) {
	names, err := candidates(o.ConfDir)
	if err != nil {
		return nil, err
	}
	if o.ConfFile != "" {
		return o.named(names)
	}
	if len(names) == 0 {
		return nil, notNow("there is no network in %s yet; ip-masq chains behind one and makes none", o.ConfDir)
	}
	first, err := o.load(names[0])
	if err != nil || !isMultus(first) {
		return first, err
	}
	return o.delegate(first, names[1:])
}

// named is the file of --conf-file, or the list that an earlier run made of it.
func (o Options) named(names []string) (*network, error) {
	if slices.Contains(names, o.ConfFile) {
		return o.load(o.ConfFile)
	}
	if list := listName(o.ConfFile); isSingle(o.ConfFile) && slices.Contains(names, list) {
		n, err := o.load(list)
		if err == nil && stringOf(n.list.keys[convertedKey]) == o.ConfFile {
			return n, nil
		}
	}
	return nil, notNow("--conf-file: there is no file %s in %s", o.ConfFile, o.ConfDir)
}

// load reads a network and refuses one that the runtime would not load: it is its owner's to complete.
func (o Options) load(name string) (*network, error) {
	file, err := readFile(filepath.Join(o.ConfDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notNow("%w", err)
	}
	if err != nil {
		return nil, err
	}
	if len(trim(file.raw)) == 0 {
		return nil, notNow("%s is empty; waiting for its owner to write it", file.path)
	}
	list, err := understand(file)
	if err == nil {
		err = list.check()
	}
	if err != nil {
		return nil, notNow("%s, which the runtime loads, is broken: %w; waiting for its owner to repair it", file.path, err)
	}
	return &network{confFile: file, list: list}, nil
}

// understand takes a single plugin's configuration for a list of one, as runtimes do.
func understand(file *confFile) (*conflist, error) {
	l, err := scan(file.raw)
	if err != nil || !isSingle(file.name()) {
		return l, err
	}
	l.entries = nil
	if l.keys != nil {
		l.entries = []entry{{start: 0, end: len(file.raw), pluginConf: decodePlugin(l.keys)}}
	}
	return l, nil
}

// acceptable refuses a network that our plugin would not serve as its owner expects.
func (o Options) acceptable(n *network) error {
	if len(n.list.ours()) == len(n.list.entries) {
		return fmt.Errorf("%s: %w", n.path, errAlone)
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

// spoken refuses a list whose version our plugin does not speak: runtimes compare the very strings, and CRI-O drops the whole
// network otherwise.
func (n *network) spoken(versions []string) error {
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
