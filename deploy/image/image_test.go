package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// files are those of a tar.
func files(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if all[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// Every digest is that of its blob, both formats name the same blobs, and a second
// build has the same bytes.
func TestAnImageIsWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"banmesh", "banmesh-gate"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("program "+name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var builds [2][]byte
	for i := range builds {
		out := filepath.Join(dir, "out")
		if err := write("arm64", "1.2.3", time.Unix(1795000000, 0).UTC(), dir, out); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		builds[i] = b
	}
	if !bytes.Equal(builds[0], builds[1]) {
		t.Error("two builds differ")
	}
	all := files(t, builds[0])
	for name, b := range all {
		if dir, base := filepath.Split(name); dir == "blobs/sha256/" && base != "" {
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != base {
				t.Errorf("%s has another digest", name)
			}
		}
	}
	var index struct{ Manifests []descriptor }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	var docker []struct {
		Config           string
		RepoTags, Layers []string
	}
	for name, v := range map[string]any{"index.json": &index, "manifest.json": &docker} {
		if err := json.Unmarshal(all[name], v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if err := json.Unmarshal(all[index.Manifests[0].path()], &manifest); err != nil {
		t.Fatal(err)
	}
	if docker[0].Config != manifest.Config.path() || docker[0].Layers[0] != manifest.Layers[0].path() || docker[0].RepoTags[0] != "banmesh:1.2.3" {
		t.Errorf("the formats differ: %+v, %+v", docker, manifest)
	}
	var config struct {
		Architecture string
		RootFS       struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(all[manifest.Config.path()], &config); err != nil || config.Architecture != "arm64" || config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("the configuration is %+v, %v", config, err)
	}
	if got := files(t, all[manifest.Layers[0].path()]); string(got["usr/bin/banmesh"]) != "program banmesh" || got["etc/passwd"] == nil {
		t.Error("the layer lacks a file")
	}
}
