// dotnet add package Microsoft.ML.OnnxRuntime
using Microsoft.ML.OnnxRuntime;

static float[] Answer(string path, float[] x)
{
    using var session = new InferenceSession(path);
    using var batch = OrtValue.CreateTensorValueFromMemory(x, new long[] { x.Length, 1 });
    var inputs = new Dictionary<string, OrtValue> { [session.InputNames[0]] = batch };
    using var outputs = session.Run(new RunOptions(), inputs, session.OutputNames);
    return outputs[0].GetTensorDataAsSpan<float>().ToArray();
}
