/* What libnvinfer, its plugin library and its ONNX parser must export for NVIDIA's Python bindings to be imported where
   those libraries are not. Nothing can be built with them: every entry gives NULL. */
#define ENTRY(name) \
    void* name(void) { return 0; }
ENTRY(createInferBuilder_INTERNAL)
ENTRY(createInferRefitter_INTERNAL)
ENTRY(createInferRuntime_INTERNAL)
ENTRY(createNvOnnxParser_INTERNAL)
ENTRY(createNvOnnxParserRefitter_INTERNAL)
ENTRY(getPluginRegistry)
ENTRY(getBuilderPluginRegistry)
int getNvOnnxParserVersion(void) { return 0; }
unsigned char initLibNvInferPlugins(void* logger, char const* space) { return logger == 0 && space == 0; }
