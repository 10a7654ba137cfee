package runtime

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	goruntime "runtime"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// imageName is never pulled, since the image is imported before anything asks for it.
const imageName = "ip-masq.test/talker:1"

// image is a docker archive with the talker, which sends to the addresses.
func image(t *testing.T, targets ...string) []byte {
	t.Helper()
	layer := archive(t, map[string][]byte{"talker": readFile(t, testkit.Program("talker"))})
	digest := sha256.Sum256(layer)
	config := document(t, map[string]any{
		"architecture": goruntime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": append([]string{"/talker"}, targets...)},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(digest[:])}},
	})
	manifest := document(t, []map[string]any{{"Config": "config.json", "RepoTags": []string{imageName}, "Layers": []string{"layer.tar"}}})
	return archive(t, map[string][]byte{"config.json": config, "layer.tar": layer, "manifest.json": manifest})
}

func archive(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func document(t *testing.T, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
