package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func (o Options) resultsDir() string { return filepath.Join(o.CacheDir, "results") }

// attachments counts the pods whose deletion will call our plugin: libcni caches the list that a pod was attached by, and
// CRI-O replays that on DEL, whatever the file says by then.
func (o Options) attachments() (count int, example string, err error) {
	files, err := os.ReadDir(o.resultsDir())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", fmt.Errorf("read the runtime's attachments (--cni-cache-dir): %w", err)
	}
	for _, file := range files {
		var cached struct {
			Config []byte `json:"config"`
		}
		raw, err := os.ReadFile(filepath.Join(o.resultsDir(), file.Name()))
		if err == nil && json.Unmarshal(raw, &cached) == nil && namesUs(cached.Config) {
			count, example = count+1, file.Name()
		}
	}
	return count, example, nil
}

// namesUs says whether a configuration would have a runtime, or another plugin, call ours: at whatever depth, since multus
// and its like carry whole lists inside.
func namesUs(raw []byte) bool {
	var document any
	return json.Unmarshal(raw, &document) == nil && mentions(document)
}

func mentions(value any) bool {
	switch value := value.(type) {
	case map[string]any:
		if value["type"] == pluginType {
			return true
		}
		for _, member := range value {
			if mentions(member) {
				return true
			}
		}
	case []any:
		for _, item := range value {
			if mentions(item) {
				return true
			}
		}
	}
	return false
}
